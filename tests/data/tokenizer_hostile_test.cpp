// Damaged and hostile tokenizer files: every one is a DataError that names the file and the fault.
#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "train/data/tokenizer/pipeline_tokenizer.h"
#include "train/data/tokenizer/sentencepiece_model.h"
#include "train/data/tokenizer/sentencepiece_tokenizer.h"
#include "train/data/tokenizer/tokenizer_json.h"
#include "train/data/tokenizer/vocabulary_files.h"

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
    PipelineTokenizer(read_tokenizer_json(text, "F.json"), "F.json");
    return "";
  } catch (const DataError& error) {
    return error.what();
  }
}

void expect_refused(const std::function<void(Json&)>& change, const std::string& reason,
                    const std::string& file = "bpe/tokenizer.json") {
  Json json = Json::parse(read_golden(file));
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
  expect_refused([](Json& j) { j["model"]["type"] = "WordLevel"; }, "WordLevel");
  expect_refused([](Json& j) { j["model"]["type"] = "Unigram"; }, "expected an array");
  expect_refused([](Json& j) { j["model"]["type"] = "WordPiece"; }, "unk_token");
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
  expect_refused([](Json& j) { j["normalizer"] = {{"type", "Nmt"}}; }, "'Nmt' is not supported");
  expect_refused([](Json& j) { j["pre_tokenizer"] = {{"type", "UnicodeScripts"}}; }, "UnicodeScripts");
  expect_refused([](Json& j) { j["decoder"] = {{"type", "CTC"}}; }, "CTC");
  expect_refused([](Json& j) { j["post_processor"] = {{"type", "Magic"}}; }, "Magic");
  expect_refused([](Json& j) { j["model"]["dropout"] = 0.1; }, "model.dropout");
  expect_refused(
      [](Json& j) {
        j["pre_tokenizer"] = {
            {"type", "Split"}, {"pattern", {{"Regex", "(a+)+"}}}, {"behavior", "Isolated"}, {"invert", false}};
      },
      "unknown pattern '(a+)+'");
}

TEST(HostileTokenizer, Components) {
  const auto normalizer = [](Json value) { return [value](Json& j) { j["normalizer"] = value; }; };
  expect_refused(normalizer({{"type", "Replace"}, {"pattern", {{"Regex", ".*"}}}, {"content", ""}}), "Regex");
  expect_refused(normalizer({{"type", "Replace"}, {"pattern", {{"String", ""}}}, {"content", ""}}), "is empty");
  expect_refused(normalizer({{"type", "Precompiled"}, {"precompiled_charsmap", "???"}}), "not base64");
  expect_refused(normalizer({{"type", "Precompiled"}, {"precompiled_charsmap", "AAA="}}), "2 bytes");
  expect_refused(normalizer({{"type", "Precompiled"}, {"precompiled_charsmap", "/////w=="}}), "for its trie");
  const auto pre = [](Json value) { return [value](Json& j) { j["pre_tokenizer"] = value; }; };
  expect_refused(pre({{"type", "Metaspace"}, {"replacement", ""}}), "is empty");
  expect_refused(pre({{"type", "Metaspace"}, {"replacement", "_"}, {"prepend_scheme", "last"}}), "'last'");
  expect_refused(
      [](Json& j) {
        j["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", {j["pre_tokenizer"], {{"type", "Digits"}}}}};
      },
      "last step");
  expect_refused(
      [](Json& j) {
        j["pre_tokenizer"] = {{"type", "ByteLevel"}};
      },
      "BPE model only", "bert_wordpiece/tokenizer.json");
}

TEST(HostileTokenizer, Templates) {
  const char* file = "bert_wordpiece/tokenizer.json";
  expect_refused([](Json& j) { j["post_processor"]["special_tokens"]["[CLS]"]["ids"] = {700}; }, "no token's id", file);
  expect_refused([](Json& j) { j["post_processor"]["special_tokens"].erase("[CLS]"); }, "'[CLS]' is missing", file);
  expect_refused([](Json& j) { j["post_processor"]["single"].erase(1); }, "expected the text A once", file);
  expect_refused([](Json& j) { j["post_processor"]["pair"].push_back(j["post_processor"]["pair"][1]); }, "once each",
                 file);
  expect_refused([](Json& j) { j["post_processor"]["single"][1]["Sequence"]["id"] = "C"; }, "expected A or B", file);
  expect_refused(
      [](Json& j) {
        j["post_processor"] = {{"type", "BertProcessing"}, {"cls", {"[CLS]"}}};
      },
      "elements", file);
}

TEST(HostileTokenizer, WordPieceAndUnigram) {
  const char* file = "bert_wordpiece/tokenizer.json";
  expect_refused([](Json& j) { j["model"]["unk_token"] = "[NONE]"; }, "'[NONE]' is not in the vocabulary", file);
  expect_refused([](Json& j) { j["model"]["continuing_subword_prefix"] = ""; }, "is empty", file);
  expect_refused([](Json& j) { j["model"]["max_input_chars_per_word"] = -1; }, "is -1", file);
  const auto unigram = [](Json vocab, Json unknown) {
    return [=](Json& j) {
      j["model"] = {{"type", "Unigram"}, {"unk_id", unknown}, {"vocab", vocab}};
      j["pre_tokenizer"] = j["added_tokens"] = nullptr;
    };
  };
  expect_refused(unigram(Json::array(), 0), "is empty");
  expect_refused(unigram(Json::parse(R"([["a", -1.5], ["b"]])"), 0), "expected a token and its score");
  expect_refused(unigram(Json::parse(R"([["a", -1.5], ["a", -2]])"), 0), "has two ids");
  expect_refused(unigram(Json::parse(R"([["a", -1.5]])"), 1), "unk_id: is 1");
  expect_refused(unigram(Json::parse(R"([["a", -1.5]])"), -1), "expected a token id");
}

TEST(HostileTokenizer, VocabTxt) {
  const auto error = [](const std::string& text) {
    try {
      read_vocab_txt({text, "v.txt"}, {});
    } catch (const DataError& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  EXPECT_EQ(error("[UNK]\r\n[CLS]\r\n[SEP]"), "");
  EXPECT_NE(error("[UNK]\n[CLS]\n").find("v.txt: the token [SEP] is missing"), std::string::npos);
  EXPECT_NE(error("[UNK]\n[CLS]\n[SEP]\na\na").find("lines 4 and 5"), std::string::npos);
  EXPECT_NE(error("[UNK]\n\xFF").find("line 2 is not UTF-8"), std::string::npos);
  EXPECT_NE(error("").find("missing"), std::string::npos);
}

TEST(HostileTokenizer, ConfigBeside) {
  EXPECT_THROW(read_extra_ids({R"({"extra_ids": -1})", "c"}), DataError);
  EXPECT_THROW(read_extra_ids({R"({"extra_ids": 1e9})", "c"}), DataError);
  EXPECT_THROW(read_extra_ids({R"({"extra_ids": 1000000000})", "c"}), DataError);
  EXPECT_EQ(read_extra_ids({R"({"tokenizer_class": "T5TokenizerFast"})", "c"}), 100);
  EXPECT_EQ(read_extra_ids({R"({"tokenizer_class": "LlamaTokenizer"})", "c"}), 0);
  EXPECT_THROW(read_bert_normalizer({R"({"do_lower_case": "yes"})", "c"}), DataError);
}

TEST(HostileTokenizer, SentencePieceFields) {
  const std::string model = read_golden("t5_unigram/spiece.model");
  const SentencePieceModel read = read_sentencepiece_model(model, "F.model");
  EXPECT_EQ(read.pieces.size(), 512u);
  EXPECT_EQ(read.pieces[1].text, "</s>");
  EXPECT_EQ(read.pieces[1].kind, SentencePieceModel::Kind::control);
  for (const size_t size : {size_t{1}, size_t{7}, size_t{1000}, model.size() - 3})
    EXPECT_THROW(read_sentencepiece_model(model.substr(0, size), "F.model"), DataError) << size;
  EXPECT_THROW(read_sentencepiece_model("", "F.model"), DataError);
  EXPECT_THROW(read_sentencepiece_model(std::string(20, '\xFF'), "F.model"), DataError);
  const auto bpe = read_sentencepiece_model(read_golden("llama_bpe/tokenizer.model"), "F.model");
  EXPECT_EQ(bpe.algorithm, SentencePieceModel::Algorithm::bpe);
  EXPECT_THROW(t5_definition(bpe, 0, "F.model"), DataError);
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
