// Damaged and hostile tokenizer files: every one is a DataError that names the file and the fault.
#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "train/data/tokenizer/bpe_tokenizer.h"
#include "train/data/tokenizer/sentencepiece_tokenizer.h"
#include "train/data/tokenizer/tokenizer_json.h"

namespace mixtape {
namespace {

using Json = nlohmann::json;

std::string read_golden(const std::string& name) {
  std::ifstream file(std::string(MIXTAPE_GOLDEN) + "/tokenizers/" + name, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// The error that the text gives; empty if it is taken.
std::string error_of(const std::string& text) {
  try {
    BpeTokenizer(read_tokenizer_json(text, "F.json"), "F.json");
    return "";
  } catch (const DataError& error) {
    return error.what();
  }
}

void expect_refused(const std::function<void(Json&)>& change, const std::string& reason) {
  Json json = Json::parse(read_golden("bpe/tokenizer.json"));
  change(json);
  const std::string error = error_of(json.dump());
  EXPECT_TRUE(error.starts_with("F.json: ")) << error;
  EXPECT_NE(error.find(reason), std::string::npos) << error << " lacks " << reason;
}

TEST(HostileTokenizer, TheGoldenFileItselfIsTaken) { EXPECT_EQ(error_of(read_golden("bpe/tokenizer.json")), ""); }

TEST(HostileTokenizer, NotJson) {
  EXPECT_NE(error_of("").find("not valid JSON"), std::string::npos);
  EXPECT_NE(error_of("{\"model\": ").find("not valid JSON"), std::string::npos);
  EXPECT_NE(error_of("{\"a\": \"\xFF\"}").find("not valid JSON"), std::string::npos);
  EXPECT_NE(error_of(std::string(1 << 20, '[')).find("nested deeper"), std::string::npos);
  EXPECT_NE(error_of(R"({"model": 1, "model": 2})").find("stands twice"), std::string::npos);
  EXPECT_NE(error_of("[]").find("expected an object"), std::string::npos);
}

TEST(HostileTokenizer, Vocabulary) {
  expect_refused([](Json& j) { j.erase("model"); }, "'model' is missing");
  expect_refused([](Json& j) { j["model"]["type"] = "Unigram"; }, "Unigram");
  expect_refused([](Json& j) { j["model"].erase("vocab"); }, "'vocab' is missing");
  expect_refused([](Json& j) { j["model"]["vocab"]["the"] = 5; }, "both have the id 5");
  expect_refused([](Json& j) { j["model"]["vocab"]["new"] = 600; }, "no token has the id 512");
  expect_refused([](Json& j) { j["model"]["vocab"]["new"] = -1; }, "expected a token id");
  expect_refused([](Json& j) { j["model"]["vocab"]["new"] = 1.5; }, "expected an integer");
  expect_refused([](Json& j) { j["model"]["vocab"]["new"] = uint64_t{1} << 63; }, "too large");
  expect_refused([](Json& j) { j["model"]["vocab"]["new"] = 1 << 30; }, "expected a token id");
  expect_refused(
      [](Json& j) {
        j["model"]["vocab"].erase("!");
        j["model"]["vocab"]["zz"] = 1;
      },
      "no token for the byte 0x21");
}

TEST(HostileTokenizer, Merges) {
  expect_refused([](Json& j) { j["model"]["merges"][3] = {"q", "nowhere"}; }, "'nowhere' is not in the vocabulary");
  expect_refused([](Json& j) { j["model"]["merges"][3] = {"!", "!"}; }, "'!!', which is not in model.vocab");
  expect_refused([](Json& j) { j["model"]["merges"][3] = {"a"}; }, "expected two tokens");
  expect_refused([](Json& j) { j["model"]["merges"][3] = "a b c"; }, "expected two tokens");
  expect_refused([](Json& j) { j["model"]["merges"] = "a"; }, "expected an array");
}

TEST(HostileTokenizer, AddedTokens) {
  expect_refused([](Json& j) { j["added_tokens"][0]["id"] = 7; }, "the id 7");
  expect_refused([](Json& j) { j["added_tokens"][0]["content"] = ""; }, "is empty");
  expect_refused([](Json& j) { j["added_tokens"].push_back(j["added_tokens"][0]); }, "given twice");
  expect_refused([](Json& j) { j["added_tokens"][0]["single_word"] = true; }, "single_word");
}

TEST(HostileTokenizer, ComponentsThatAreNotSupportedAreNamed) {
  expect_refused([](Json& j) { j["normalizer"] = {{"type", "BertNormalizer"}}; }, "BertNormalizer");
  expect_refused([](Json& j) { j["pre_tokenizer"] = {{"type", "Metaspace"}}; }, "Metaspace");
  expect_refused([](Json& j) { j["decoder"] = {{"type", "WordPiece"}}; }, "WordPiece");
  expect_refused([](Json& j) { j["post_processor"] = {{"type", "Magic"}}; }, "Magic");
  expect_refused([](Json& j) { j["model"]["dropout"] = 0.1; }, "model.dropout");
  expect_refused(
      [](Json& j) {
        j["pre_tokenizer"] = {
            {"type", "Split"}, {"pattern", {{"Regex", "(a+)+"}}}, {"behavior", "Isolated"}, {"invert", false}};
      },
      "unknown pattern '(a+)+'");
}

TEST(HostileTokenizer, VocabAndMergesPair) {
  const std::string vocab = read_golden("bpe/vocab.json");
  EXPECT_NO_THROW(read_vocab_and_merges({vocab, "v"}, {"#version: 0.2\n", "m"}));
  EXPECT_THROW(read_vocab_and_merges({vocab, "v"}, {"a b c\n", "m"}), DataError);
  EXPECT_THROW(read_vocab_and_merges({vocab, "v"}, {"\xFF \xFE\n", "m"}), DataError);
  EXPECT_THROW(read_vocab_and_merges({"{}", "v"}, {"", "m"}), DataError);
}

TEST(HostileTokenizer, SentencePieceThatIsDamaged) {
  const std::string model = read_golden("t5_unigram/spiece.model");
  EXPECT_NO_THROW(SentencePieceTokenizer(model, "F.model"));
  EXPECT_THROW(SentencePieceTokenizer(model.substr(0, 1000), "F.model"), DataError);
  EXPECT_THROW(SentencePieceTokenizer("not a model", "F.model"), DataError);
}

TEST(HostileTokenizer, MissingFiles) {
  EXPECT_THROW(load_tokenizer("/nowhere/tokenizer.json"), DataError);
  EXPECT_THROW(load_tokenizer(testing::TempDir()), DataError);
  EXPECT_THROW(load_tokenizer(std::string(MIXTAPE_GOLDEN) + "/tokenizers/README.md"), DataError);
}

}  // namespace
}  // namespace mixtape
