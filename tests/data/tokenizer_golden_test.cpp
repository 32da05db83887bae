// The ids and texts of Hugging Face's tokenizers and of sentencepiece, case by case (tests/golden/tokenizers).
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "core/base/utf8.h"
#include "train/data/tokenizer/tokenizer.h"

namespace mixtape {
namespace {

using Json = nlohmann::json;
using Ids = std::vector<int32_t>;

std::vector<Json> golden_cases(const std::string& name) {
  std::ifstream file(test::golden_tokenizer(name));
  std::vector<Json> out;
  for (std::string line; std::getline(file, line);) out.push_back(Json::parse(line));
  EXPECT_GT(out.size(), 50u) << name;
  return out;
}

std::string text_of(const Json& row) {
  if (row.contains("text")) return row["text"];
  const std::string hex = row["bytes_hex"];
  std::string bytes;
  for (size_t i = 0; i < hex.size(); i += 2) bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  return bytes;
}

std::vector<std::string> spelled(const Tokenizer& tokenizer, const Ids& ids) {
  std::vector<std::string> out;
  for (const int32_t id : ids) out.push_back(tokenizer.token_text(id));
  return out;
}

std::string streamed(const Tokenizer& tokenizer, const Ids& ids) {
  StreamDecoder stream(tokenizer, false, false);
  std::string out;
  for (const int32_t id : ids) {
    const std::string part = stream.next(id);
    EXPECT_TRUE(is_utf8(part));
    out += part;
  }
  return out + stream.finish();
}

class ByteLevelGolden : public testing::TestWithParam<const char*> {};

TEST_P(ByteLevelGolden, CasesFromTokenizerJson) {
  const std::string name = GetParam();
  const auto tokenizer = load_tokenizer(test::golden_tokenizer(name + "/tokenizer.json"));
  EXPECT_EQ(tokenizer->vocab_size(), 512);
  EXPECT_EQ(tokenizer->eos_id(), 0);
  for (const Json& row : golden_cases(name + "/cases.jsonl")) {
    const Ids ids = tokenizer->encode(text_of(row));
    EXPECT_EQ(ids, row["ids"].get<Ids>()) << row;
    EXPECT_EQ(spelled(*tokenizer, ids), row["tokens"].get<std::vector<std::string>>()) << row;
    EXPECT_EQ(tokenizer->decode(ids), row["decoded"]) << row;
    EXPECT_EQ(streamed(*tokenizer, ids), row["decoded"]) << row;
    const Ids plain = tokenizer->encode(text_of(row), {.parse_special = false});
    EXPECT_EQ(tokenizer->decode(plain), row["text"]) << row;
    EXPECT_EQ(std::ranges::count(plain, 0), 0) << row;
  }
}

TEST_P(ByteLevelGolden, BrokenUtf8Decodes) {
  const std::string name = GetParam();
  const auto tokenizer = load_tokenizer(test::golden_tokenizer(name));
  for (const Json& row : golden_cases(name + "/decode_cases.jsonl")) {
    const Ids ids = row["ids"];
    EXPECT_EQ(tokenizer->decode(ids), row["decoded"]) << row;
    EXPECT_EQ(streamed(*tokenizer, ids), row["decoded"]) << row;
  }
}

INSTANTIATE_TEST_SUITE_P(Tokenizers, ByteLevelGolden, testing::Values("bpe", "bpe_digits"));

TEST(TokenizerGolden, VocabAndMergesPair) {
  const auto tokenizer = load_tokenizer(test::golden_tokenizer("bpe/vocab.json"));
  EXPECT_EQ(tokenizer->eos_id(), 0);
  for (const Json& row : golden_cases("bpe/cases.jsonl"))
    EXPECT_EQ(tokenizer->encode(text_of(row)), row["ids"].get<Ids>()) << row;
}

TEST(TokenizerGolden, PublishedPatterns) {
  for (const std::string& name : std::vector<std::string>{"llama3", "qwen2", "bloom"}) {
    const auto tokenizer = load_tokenizer(test::golden_tokenizer("patterns/" + name + ".json"));
    for (const Json& row : golden_cases("patterns/cases.jsonl"))
      EXPECT_EQ(tokenizer->encode(text_of(row)), row[name].get<Ids>()) << name << row;
  }
}

TEST(TokenizerGolden, LlamaFromTokenizerJson) {
  const auto tokenizer = load_tokenizer(test::golden_tokenizer("llama_bpe/tokenizer.json"));
  EXPECT_EQ(tokenizer->bos_id(), 1);
  EXPECT_EQ(tokenizer->eos_id(), 2);
  for (const Json& row : golden_cases("llama_bpe/cases.jsonl")) {
    if (!row.contains("hf_ids")) continue;
    const Ids ids = tokenizer->encode(text_of(row), {.add_special = true});
    EXPECT_EQ(ids, row["hf_ids"].get<Ids>()) << row;
    EXPECT_EQ(tokenizer->decode(ids), row["hf_decoded"]) << row;
    EXPECT_EQ(streamed(*tokenizer, ids), row["hf_decoded"]) << row;
  }
}

class SentencePieceGolden : public testing::TestWithParam<const char*> {};

TEST_P(SentencePieceGolden, Cases) {
  const auto tokenizer = load_tokenizer(test::golden_tokenizer(GetParam()));
  const std::string folder = std::filesystem::path(GetParam()).parent_path();
  for (const Json& row : golden_cases(folder + "/cases.jsonl")) {
    const Ids ids = tokenizer->encode(text_of(row));
    EXPECT_EQ(ids, row["ids"].get<Ids>()) << row;
    if (row.contains("pieces")) {
      EXPECT_EQ(spelled(*tokenizer, ids), row["pieces"].get<std::vector<std::string>>()) << row;
      EXPECT_EQ(streamed(*tokenizer, ids), row["decoded"]) << row;
    }
    EXPECT_EQ(tokenizer->decode(ids), row["decoded"]) << row;
  }
}

INSTANTIATE_TEST_SUITE_P(Tokenizers, SentencePieceGolden,
                         testing::Values("llama_bpe/tokenizer.model", "t5_unigram/spiece.model"));

TEST(TokenizerGolden, RolesOfSentencePiece) {
  const auto llama = load_tokenizer(test::golden_tokenizer("llama_bpe/tokenizer.model"));
  EXPECT_EQ(llama->bos_id(), 1);
  EXPECT_EQ(llama->eos_id(), 2);
  EXPECT_EQ(llama->pad_id(), std::nullopt);
  EXPECT_EQ(llama->encode("", {.add_special = true}), Ids{1});
  const auto t5 = load_tokenizer(test::golden_tokenizer("t5_unigram"));
  EXPECT_EQ(t5->bos_id(), std::nullopt);
  EXPECT_EQ(t5->eos_id(), 1);
  EXPECT_EQ(t5->pad_id(), 0);
  EXPECT_EQ(t5->vocab_size(), 512);
}

}  // namespace
}  // namespace mixtape
