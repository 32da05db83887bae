// The tokenizer.json of every family, as transformers makes it: ids, texts and pairs of Hugging Face's tokenizers.
// tests/golden/tokenizers/families holds the pipelines; their vocabularies are those of the folders beside it.
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/data/support.h"
#include "train/data/tokenizer/character_map.h"
#include "train/data/tokenizer/pipeline_tokenizer.h"
#include "train/data/tokenizer/sentencepiece_model.h"
#include "train/data/tokenizer/tokenizer_json.h"
#include "train/data/tokenizer/vocabulary_files.h"

namespace mixtape {
namespace {

using OrderedJson = nlohmann::ordered_json;
using Ids = std::vector<int32_t>;

OrderedJson golden_json(const std::string& name) {
  return OrderedJson::parse(std::ifstream(test::golden_tokenizer(name)));
}

std::vector<OrderedJson> cases(const std::string& name) {
  std::ifstream file(test::golden_tokenizer(name));
  std::vector<OrderedJson> out;
  for (std::string line; std::getline(file, line);) out.push_back(OrderedJson::parse(line));
  return out;
}

SentencePieceModel t5_model() {
  return read_sentencepiece_model(test::read_bytes(test::golden_tokenizer("t5_unigram/spiece.model")), "spiece.model");
}

// Puts the vocabulary that `name` stands for into `model`.
void fill_model(OrderedJson& model) {
  if (model["vocab"].is_object()) {  // the first tokens; GPT-2's follow
    const OrderedJson gpt2 = golden_json("bpe/vocab.json");
    for (const auto& [token, id] : gpt2.items())
      if (!model["vocab"].contains(token)) model["vocab"][token] = model["vocab"].size();
  } else if (model["vocab"] == "t5_unigram") {
    OrderedJson vocab = OrderedJson::array();
    for (const auto& piece : t5_model().pieces) vocab.push_back({piece.text, piece.score});
    for (int i = 99; i >= 0; --i) vocab.push_back({sentinel_name(size_t(i)), 0.0});
    model["vocab"] = vocab;
  } else {
    model["vocab"] = golden_json(model["vocab"].get<std::string>() + "/tokenizer.json")["model"]["vocab"];
  }
  if (model.contains("merges"))
    model["merges"] = golden_json(model["merges"].get<std::string>() + "/tokenizer.json")["model"]["merges"];
}

void fill_character_map(OrderedJson& normalizer) {
  if (normalizer.is_null()) return;
  if (normalizer.contains("precompiled_charsmap"))
    normalizer["precompiled_charsmap"] = to_base64(t5_model().character_map);
  if (normalizer.contains("normalizers"))
    for (OrderedJson& step : normalizer["normalizers"]) fill_character_map(step);
}

std::string family_json(const std::string& name) {
  OrderedJson json = golden_json("families/families.json")[name];
  fill_model(json["model"]);
  fill_character_map(json["normalizer"]);
  return json.dump();
}

std::unique_ptr<Tokenizer> made(const std::string& json) {
  return std::make_unique<PipelineTokenizer>(read_tokenizer_json(json, "family"), "family");
}

class Families : public testing::TestWithParam<const char*> {};

TEST_P(Families, EncodesAndDecodesAsHuggingFace) {
  const auto tokenizer = made(family_json(GetParam()));
  const auto rows = cases("families/cases.jsonl");
  EXPECT_GT(rows.size(), 100u);
  for (const OrderedJson& row : rows) {
    const Ids ids = tokenizer->encode(row["text"].get<std::string>(), {.add_special = true});
    EXPECT_EQ(ids, row[GetParam()][0].get<Ids>()) << row["text"];
    EXPECT_EQ(tokenizer->decode(ids), row[GetParam()][1].get<std::string>()) << row["text"];
    StreamDecoder stream(*tokenizer, false, false);
    std::string streamed;
    for (const int32_t id : ids) streamed += stream.next(id);
    EXPECT_EQ(streamed + stream.finish(), row[GetParam()][1].get<std::string>()) << row["text"];
  }
}

TEST_P(Families, EncodesPairsAsHuggingFace) {
  const auto tokenizer = made(family_json(GetParam()));
  for (const OrderedJson& row : cases("families/pair_cases.jsonl")) {
    const EncodedPair pair = tokenizer->encode_pair(row["a"].get<std::string>(), row["b"].get<std::string>());
    EXPECT_EQ(pair.ids, row[GetParam()][0].get<Ids>()) << row;
    EXPECT_EQ(pair.types, row[GetParam()][1].get<Ids>()) << row;
  }
}

TEST_P(Families, SavedAndLoadedIsTheSame) {
  const test::TemporaryDirectory folder;
  const auto original = made(family_json(GetParam()));
  original->save(folder.path());
  const auto loaded = load_tokenizer(folder.path());
  EXPECT_EQ(loaded->fingerprint(), original->fingerprint());
  EXPECT_EQ(loaded->special_tokens(), original->special_tokens());
  for (const OrderedJson& row : cases("families/cases.jsonl")) {
    const std::string text = row["text"];
    EXPECT_EQ(loaded->encode(text, {.add_special = true}), row[GetParam()][0].get<Ids>()) << text;
  }
}

// Training text holds no special token, whatever it spells.
TEST_P(Families, PlainTextStaysText) {
  const auto tokenizer = made(family_json(GetParam()));
  const SpecialTokens& special = tokenizer->special_tokens();
  for (const char* literal : {"a <s> b", "</s>", "[MASK] [SEP]", "<mask>", "<extra_id_0>", "＜extra_id_0＞ ＜/s＞"})
    for (const int32_t id : tokenizer->encode(literal, {.parse_special = false}))
      EXPECT_TRUE(!tokenizer->is_special(id) || id == special.unk) << literal << " gives " << tokenizer->token_text(id);
}

INSTANTIATE_TEST_SUITE_P(Tokenizers, Families,
                         testing::Values("gpt2", "llama", "bloom", "opt", "bert", "roberta", "t5", "bart",
                                         "t5-metaspace", "bert-steps", "bert-cased", "llama-never"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::ranges::replace(name, '-', '_');
                           return name;
                         });

TEST(WordPieceGolden, CasesFromTokenizerJsonAndFromVocabTxt) {
  for (const char* file : {"bert_wordpiece/tokenizer.json", "bert_wordpiece/vocab.txt"}) {
    const auto tokenizer = load_tokenizer(test::golden_tokenizer(file));
    EXPECT_EQ(tokenizer->vocab_size(), 700);
    EXPECT_EQ(tokenizer->special_tokens(),
              (SpecialTokens{.bos = 2, .eos = 3, .unk = 1, .pad = 0, .cls = 2, .sep = 3, .mask = 4}));
    for (const OrderedJson& row : cases("bert_wordpiece/cases.jsonl")) {
      const Ids ids = tokenizer->encode(row["text"].get<std::string>(), {.add_special = true});
      EXPECT_EQ(ids, row["ids"].get<Ids>()) << file << row;
      EXPECT_EQ(tokenizer->decode(ids, true), row["decoded"].get<std::string>()) << file << row;
      for (size_t i = 0; i < ids.size(); ++i) EXPECT_EQ(tokenizer->token_text(ids[i]), row["tokens"][i]);
    }
    for (const OrderedJson& row : cases("bert_wordpiece/pair_cases.jsonl")) {
      const EncodedPair pair = tokenizer->encode_pair(row["a"].get<std::string>(), row["b"].get<std::string>());
      EXPECT_EQ(pair.ids, row["ids"].get<Ids>()) << file << row;
      EXPECT_EQ(pair.types, row["token_type_ids"].get<Ids>()) << file << row;
    }
  }
}

TEST(WordPiece, VocabTxtIsWrittenAsItWasRead) {
  const test::TemporaryDirectory folder;
  load_tokenizer(test::golden_tokenizer("bert_wordpiece/tokenizer.json"))->save(folder / "vocab.txt");
  EXPECT_EQ(test::read_bytes(folder / "vocab.txt"),
            test::read_bytes(test::golden_tokenizer("bert_wordpiece/vocab.txt")));
  EXPECT_THROW(load_tokenizer(test::golden_tokenizer("bpe"))->save(folder / "vocab.txt"), DataError);
}

TEST(WordPiece, ConfigBesideVocabTxtSaysWhetherItIsLowerCase) {
  const test::TemporaryDirectory folder;
  test::write_bytes(folder / "vocab.txt", "[UNK]\n[CLS]\n[SEP]\nA\na\né\ne\n");
  const auto uncased = load_tokenizer(folder / "vocab.txt");
  EXPECT_EQ(uncased->encode("A É"), (Ids{4, 6}));
  test::write_bytes(folder / "tokenizer_config.json", R"({"do_lower_case": false})");
  const auto cased = load_tokenizer(folder / "vocab.txt");
  EXPECT_EQ(cased->encode("A é"), (Ids{3, 5}));
  cased->save(folder / "saved/vocab.txt");
  EXPECT_EQ(load_tokenizer(folder / "saved/vocab.txt")->fingerprint(), cased->fingerprint());
}

TEST(WordPiece, TokensWithoutTheMarkBeginWords) {
  const auto tokenizer = load_tokenizer(test::golden_tokenizer("bert_wordpiece"));
  EXPECT_TRUE(tokenizer->begins_word(tokenizer->token_id(".").value()));
  EXPECT_TRUE(tokenizer->begins_word(tokenizer->token_id("the").value()));
  EXPECT_FALSE(tokenizer->begins_word(tokenizer->token_id("##s").value()));
}

TEST(RobertaFiles, PairWithMaskGetsItsTemplate) {
  const test::TemporaryDirectory folder;
  OrderedJson json = OrderedJson::parse(family_json("roberta"));
  test::write_bytes(folder / "vocab.json", json["model"]["vocab"].dump());
  std::string merges = "#version: 0.2\n";
  for (const OrderedJson& merge : json["model"]["merges"])
    merges += merge.is_string() ? merge.get<std::string>() + "\n"
                                : merge[0].get<std::string>() + " " + merge[1].get<std::string>() + "\n";
  test::write_bytes(folder / "merges.txt", merges);
  const auto tokenizer = load_tokenizer(folder.path());
  for (const OrderedJson& row : cases("families/cases.jsonl")) {
    const std::string text = row["text"];
    if (text.find("<|endoftext|>") != text.npos) continue;  // special by its name in a pair, not in that tokenizer.json
    EXPECT_EQ(tokenizer->encode(text, {.add_special = true}), row["roberta"][0].get<Ids>()) << text;
  }
  for (const OrderedJson& row : cases("families/pair_cases.jsonl"))
    EXPECT_EQ(tokenizer->encode_pair(row["a"].get<std::string>(), row["b"].get<std::string>()).ids,
              row["roberta"][0].get<Ids>());
}

// hf_ids of the golden T5 cases: through the tokenizer.json that its .model becomes, which is T5's published layout.
TEST(T5Golden, ModelAsTokenizerJson) {
  const PipelineTokenizer tokenizer(t5_definition(t5_model(), 100, "spiece.model"), "spiece.model");
  EXPECT_EQ(tokenizer.vocab_size(), 612);
  EXPECT_EQ(tokenizer.special_tokens().sentinels.size(), 100u);
  EXPECT_EQ(tokenizer.special_tokens().sentinels[0], 611);
  EXPECT_EQ(tokenizer.special_tokens().sentinels[99], 512);
  int same = 0;
  for (const OrderedJson& row : cases("t5_unigram/cases.jsonl")) {
    if (!row.contains("hf_ids")) continue;
    const std::string text = row["text"];
    const Ids ids = tokenizer.encode(text, {.add_special = true});
    EXPECT_EQ(ids, row["hf_ids"].get<Ids>()) << row;
    EXPECT_EQ(tokenizer.decode(ids), row["hf_decoded"].get<std::string>()) << row;
    same += row["hf_same"].get<bool>();
  }
  EXPECT_GT(same, 250);
}

TEST(T5Golden, SentinelsBehindTheModel) {
  const test::TemporaryDirectory folder;
  std::filesystem::copy(test::golden_tokenizer("t5_unigram/spiece.model"), folder / "spiece.model");
  test::write_bytes(folder / "tokenizer_config.json", R"({"extra_ids": 100, "tokenizer_class": "T5Tokenizer"})");
  const auto tokenizer = load_tokenizer(folder.path());
  EXPECT_EQ(tokenizer->vocab_size(), 612);
  EXPECT_EQ(tokenizer->special_tokens().sentinels[0], 611);
  EXPECT_EQ(tokenizer->token_id("<extra_id_99>"), 512);
  EXPECT_EQ(tokenizer->token_text(611), "<extra_id_0>");
  EXPECT_TRUE(tokenizer->is_special(611));
  const Ids ids = tokenizer->encode("the work<extra_id_0> the license", {.add_special = true});
  EXPECT_EQ(std::ranges::count(ids, 611), 1);
  EXPECT_EQ(ids.back(), 1);
  EXPECT_EQ(tokenizer->decode(ids), "the work<extra_id_0> the license");
  EXPECT_EQ(tokenizer->decode(ids, true), "the work the license");
  for (const int32_t id : tokenizer->encode("<extra_id_0>", {.parse_special = false})) EXPECT_LT(id, 512);
  EXPECT_EQ(tokenizer->encode_pair("the", "work").ids.size(), 4u);
  tokenizer->save(folder / "saved");
  const auto loaded = load_tokenizer(folder / "saved");
  EXPECT_EQ(loaded->fingerprint(), tokenizer->fingerprint());
  EXPECT_NE(loaded->fingerprint(), load_tokenizer(test::golden_tokenizer("t5_unigram/spiece.model"))->fingerprint());
  EXPECT_THROW(tokenizer->decode(Ids{612}), DataError);
}

TEST(CharacterMap, Base64GoesBothWays) {
  for (const std::string& text :
       {std::string(), std::string("f"), std::string("fo"), std::string("foo"), std::string("foob\0\xFF", 6)})
    EXPECT_EQ(from_base64(to_base64(text)), text);
  EXPECT_EQ(to_base64("foobar"), "Zm9vYmFy");
  EXPECT_EQ(to_base64("fo"), "Zm8=");
  for (const char* broken : {"a", "ab=c", "a===", "====", "a b="}) EXPECT_EQ(from_base64(broken), std::nullopt);
}

}  // namespace
}  // namespace mixtape
