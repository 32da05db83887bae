// Trained tokenizers: BPE as Hugging Face trains it, WordPiece against its plain definition, unigram through its
// library.
#include <gtest/gtest.h>

#include <unistd.h>

#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "core/base/error.h"
#include "core/base/utf8.h"
#include "tests/data/support.h"
#include "train/data/tokenizer/bpe_trainer.h"
#include "train/data/tokenizer/normalizer.h"
#include "train/data/tokenizer/split.h"
#include "train/data/tokenizer/unigram_trainer.h"
#include "train/data/tokenizer/wordpiece_trainer.h"

namespace mixtape {
namespace {

using Json = nlohmann::json;
using Ids = std::vector<int32_t>;

std::vector<std::string> texts() {
  std::ifstream file(test::golden_tokenizer("bpe/cases.jsonl"));
  std::vector<std::string> out;
  for (std::string line; std::getline(file, line);) out.push_back(Json::parse(line)["text"]);
  return out;
}

std::unique_ptr<Tokenizer> train(BpeTrainerOptions options, const std::vector<std::string>& texts) {
  BpeTrainer trainer(std::move(options));
  for (const std::string& text : texts) trainer.add(text);
  return trainer.train();
}

TEST(BpeTrainer, SameFileAsHuggingFace) {
  const std::string file = testing::TempDir() + "mixtape_trained_" + std::to_string(::getpid()) + ".json";
  train({.vocab_size = 420, .min_frequency = 2}, texts())->save(file);
  std::ifstream made(file), expected(test::golden_tokenizer("trained.json"));
  EXPECT_EQ(Json::parse(made), Json::parse(expected));
  std::filesystem::remove(file);
}

TEST(BpeTrainer, NeitherThreadsNorOrderMatter) {
  std::vector<std::string> input = texts();
  const auto one = train({.vocab_size = 500, .threads = 1}, input);
  std::ranges::reverse(input);
  const auto four = train({.vocab_size = 500, .threads = 4}, input);
  EXPECT_EQ(one->fingerprint(), four->fingerprint());
}

TEST(BpeTrainer, StopsWhereNoPairIsFrequent) {
  const auto tokenizer = train({.vocab_size = 1000, .min_frequency = 3}, {"abab abab ab", "xy xy"});
  // "ab" occurs five times; then "abab" and " ab" twice each, too rarely.
  EXPECT_EQ(tokenizer->vocab_size(), 257 + 1);
  EXPECT_TRUE(tokenizer->token_id("ab"));
  EXPECT_FALSE(tokenizer->token_id("xy"));
}

TEST(BpeTrainer, OverlapsAreCountedOnce) {
  const auto tokenizer = train({.vocab_size = 1000, .min_frequency = 1}, {std::string(7, 'a')});
  EXPECT_EQ(tokenizer->encode(std::string(7, 'a')).size(), 1u);
}

TEST(BpeTrainer, SplitsDigits) {
  const auto tokenizer = train({.vocab_size = 300, .split_digits = true}, {"1212 1212 1212 1212"});
  EXPECT_EQ(tokenizer->encode("12").size(), 2u);
}

TEST(BpeTrainer, TextNeverBecomesASpecialToken) {
  std::string text;
  for (int i = 0; i < 50; ++i) text += "ENDTOKEN ";
  const auto tokenizer = train({.vocab_size = 400, .special_tokens = {"<pad>", "ENDTOKEN", "</s>"}}, {text});
  EXPECT_EQ(tokenizer->eos_id(), 2);
  EXPECT_EQ(tokenizer->pad_id(), 0);
  EXPECT_EQ(tokenizer->encode("ENDTOKEN"), Ids{1});
  const Ids plain = tokenizer->encode("ENDTOKEN", {.parse_special = false});
  EXPECT_GT(plain.size(), 1u);
  EXPECT_EQ(tokenizer->decode(plain), "ENDTOKEN");
}

TEST(BpeTrainer, EnclosesTextsAsRobertaDoes) {
  const test::TemporaryDirectory folder;
  train({.vocab_size = 300, .special_tokens = {"<s>", "<pad>", "</s>"}, .encloses = true}, {"ab ab ab"})
      ->save(folder / "tokenizer.json");
  const auto tokenizer = load_tokenizer(folder / "tokenizer.json");
  const int32_t ab = *tokenizer->token_id("ab");
  EXPECT_EQ(tokenizer->encode("ab", {.add_special = true}), (Ids{0, ab, 2}));
  EXPECT_EQ(tokenizer->encode_pair("ab", "ab").ids, (Ids{0, ab, 2, 2, ab, 2}));
}

TEST(BpeTrainer, RefusesWhatCannotWork) {
  EXPECT_THROW(BpeTrainer({.special_tokens = {"<s>"}, .encloses = true}), ConfigError);
  EXPECT_THROW(BpeTrainer({.vocab_size = 256}), ConfigError);
  EXPECT_THROW(BpeTrainer({.vocab_size = 1 << 25}), ConfigError);
  EXPECT_THROW(BpeTrainer({.special_tokens = {"<a>", "<a>"}}), ConfigError);
  EXPECT_THROW(BpeTrainer({.special_tokens = {""}}), ConfigError);
  EXPECT_THROW(BpeTrainer({.special_tokens = {"Ġ"}}), ConfigError);
  EXPECT_THROW(BpeTrainer({.special_tokens = {"\xFF\xFF"}}), ConfigError);
  EXPECT_THROW(train({}, {}), DataError);
  EXPECT_THROW(train({}, {"", ""}), DataError);
}

template <class Trainer>
std::unique_ptr<Tokenizer> trained(Trainer&& trainer, const std::vector<std::string>& input) {
  for (const std::string& text : input) trainer.add(text);
  return trainer.train();
}

// WordPiece training by its definition: count all pairs, merge the most frequent (then the one of smaller ids), again.
std::vector<std::string> wordpiece_by_definition(const std::vector<std::string>& input, size_t vocab_size) {
  std::map<std::string, int64_t> words;
  const Splitter splitter(SplitRule::bert);
  for (const std::string& input_text : input) {
    const std::string text = normalize({BertNormalizer{}}, input_text);
    for (size_t begin = 0, end; begin < text.size(); begin = end) {
      end = splitter.piece_end(text, begin);
      if (!splitter.drops(text, begin)) ++words[text.substr(begin, end - begin)];
    }
  }
  std::map<std::string, std::vector<std::string>> pieces;
  std::set<std::string> alphabet;
  for (const auto& [word, count] : words) {
    for (size_t at = 0; at < word.size();) {
      const size_t length = utf8_char(word, at).length;
      pieces[word].push_back((at ? "##" : "") + word.substr(at, length));
      at += length;
    }
    if (pieces[word].size() > 100) {
      pieces.erase(word);
      continue;
    }
    alphabet.insert(pieces[word].begin(), pieces[word].end());
  }
  std::vector<std::string> vocab = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"};
  vocab.insert(vocab.end(), alphabet.begin(), alphabet.end());
  std::map<std::string, size_t> id;
  for (size_t i = 0; i < vocab.size(); ++i) id[vocab[i]] = i;
  while (vocab.size() < vocab_size) {
    std::map<std::pair<size_t, size_t>, int64_t> pairs;
    for (const auto& [word, parts] : pieces)
      for (size_t i = 0; i + 1 < parts.size(); ++i) pairs[{id[parts[i]], id[parts[i + 1]]}] += words[word];
    std::pair<size_t, size_t> best;
    int64_t most = 0;
    for (const auto& [pair, count] : pairs)
      if (count > most) most = count, best = pair;
    if (most < 2) break;
    const std::string left = vocab[best.first], right = vocab[best.second], made = left + right.substr(2);
    if (id.emplace(made, vocab.size()).second) vocab.push_back(made);
    for (auto& [word, parts] : pieces) {
      std::vector<std::string> merged;
      for (size_t i = 0; i < parts.size(); ++i) {
        const bool joins = i + 1 < parts.size() && parts[i] == left && parts[i + 1] == right;
        merged.push_back(joins ? made : parts[i]);
        i += joins;
      }
      parts = merged;
    }
  }
  return vocab;
}

TEST(WordPieceTrainer, FollowsTheDefinition) {
  const auto expected = wordpiece_by_definition(texts(), 1300);
  const auto tokenizer = trained(WordPieceTrainer({.vocab_size = 1300, .threads = 2}), texts());
  ASSERT_EQ(tokenizer->vocab_size(), int32_t(expected.size()));
  EXPECT_GT(expected.size(), 900u);
  for (int32_t id = 0; id < tokenizer->vocab_size(); ++id) EXPECT_EQ(tokenizer->token_text(id), expected[id]);
}

TEST(WordPieceTrainer, NeitherThreadsNorOrderMatter) {
  std::vector<std::string> input = texts();
  const auto one = trained(WordPieceTrainer({.vocab_size = 1200, .threads = 1}), input);
  std::ranges::reverse(input);
  const auto four = trained(WordPieceTrainer({.vocab_size = 1200, .threads = 4}), input);
  EXPECT_EQ(one->fingerprint(), four->fingerprint());
}

TEST(WordPieceTrainer, HasTheRolesOfBert) {
  const auto tokenizer =
      trained(WordPieceTrainer({.vocab_size = 60, .special_tokens = {"[DOC]"}}), {"Ab ab abc abc", "[MASK] ab"});
  EXPECT_EQ(tokenizer->special_tokens(),
            (SpecialTokens{.bos = 2, .eos = 3, .unk = 1, .pad = 0, .cls = 2, .sep = 3, .mask = 4}));
  EXPECT_EQ(tokenizer->encode("[DOC]"), Ids{5});
  EXPECT_TRUE(tokenizer->is_special(5));
  const Ids ids = tokenizer->encode("AB abc [MASK]", {.add_special = true});
  EXPECT_EQ(ids, (Ids{2, *tokenizer->token_id("ab"), *tokenizer->token_id("abc"), 4, 3}));
  EXPECT_EQ(tokenizer->decode(ids, true), "ab abc");
}

TEST(WordPieceTrainer, CasedKeepsCaseAndAccents) {
  const auto tokenizer = trained(WordPieceTrainer({.vocab_size = 40, .lowercase = false}), {"Éa Éa é A a"});
  EXPECT_TRUE(tokenizer->token_id("Éa"));
  EXPECT_TRUE(tokenizer->token_id("A"));
  EXPECT_FALSE(tokenizer->token_id("e"));
}

TEST(WordPieceTrainer, RareCharactersAreUnknown) {
  const auto tokenizer = trained(WordPieceTrainer({.vocab_size = 40, .alphabet = 2}), {"aaa bbb c ab"});
  EXPECT_EQ(tokenizer->encode("c"), Ids{1});
  EXPECT_FALSE(tokenizer->token_id("c"));
  EXPECT_TRUE(tokenizer->token_id("a"));
}

TEST(WordPieceTrainer, RefusesWhatCannotWork) {
  EXPECT_THROW(WordPieceTrainer({.vocab_size = 5}), ConfigError);
  EXPECT_THROW(WordPieceTrainer({.alphabet = 0}), ConfigError);
  EXPECT_THROW(WordPieceTrainer({.special_tokens = {"[CLS]"}}), ConfigError);
  EXPECT_THROW(WordPieceTrainer({.special_tokens = {"a\nb"}}), ConfigError);
  EXPECT_THROW(trained(WordPieceTrainer({}), {" \n"}), DataError);
  EXPECT_THROW(trained(WordPieceTrainer({.vocab_size = 7}), {"abcdef"}), DataError);
}

TEST(UnigramTrainer, HasTheLayoutOfT5) {
  const auto tokenizer = trained(UnigramTrainer({.vocab_size = 900, .sentinels = 10, .threads = 1}), texts());
  EXPECT_LE(tokenizer->vocab_size(), 900);
  const SpecialTokens& special = tokenizer->special_tokens();
  EXPECT_EQ(special.pad, 0);
  EXPECT_EQ(special.eos, 1);
  EXPECT_EQ(special.unk, 2);
  ASSERT_EQ(special.sentinels.size(), 10u);
  for (int32_t i = 0; i < 10; ++i) EXPECT_EQ(special.sentinels[i], tokenizer->vocab_size() - 1 - i);
  const Ids ids = tokenizer->encode("The license <extra_id_0> the work", {.add_special = true});
  EXPECT_EQ(ids.back(), 1);
  EXPECT_EQ(std::ranges::count(ids, special.sentinels[0]), 1);
  EXPECT_EQ(tokenizer->decode(tokenizer->encode("the work of the license")), "the work of the license");
}

// The model is the library's: as a .model and as a tokenizer.json it gives the same ids.
TEST(UnigramTrainer, ModelAndJsonGiveTheSameIds) {
  const test::TemporaryDirectory folder;
  UnigramTrainerOptions options{.vocab_size = 900, .sentinels = 10, .threads = 1};
  trained(UnigramTrainer(options), texts())->save(folder / "t/tokenizer.json");
  options.as_model = true;
  trained(UnigramTrainer(options), texts())->save(folder / "m/spiece.model");
  const auto json = load_tokenizer(folder / "t/tokenizer.json"), model = load_tokenizer(folder / "m/spiece.model");
  EXPECT_EQ(json->vocab_size(), model->vocab_size());
  EXPECT_EQ(json->special_tokens(), model->special_tokens());
  for (const char* text : {"You may not use this file.", "  two  blanks ", "1234 ﬁne ①", "naïve café"})
    EXPECT_EQ(json->encode(text), model->encode(text)) << text;
}

TEST(UnigramTrainer, DrawsLinesEvenlyAndCutsLongOnes) {
  UnigramTrainer trainer({.vocab_size = 60, .lines = 50, .threads = 1});
  for (int i = 0; i < 1000; ++i) trainer.add("line " + std::to_string(i) + "\n\n");
  std::string longest;
  for (int i = 0; i < 3000; ++i) longest += "word ";
  trainer.add(longest + std::string(10000, 'x'));
  EXPECT_GT(trainer.train()->vocab_size(), 8);
}

TEST(UnigramTrainer, RefusesWhatCannotWork) {
  EXPECT_THROW(UnigramTrainer({.vocab_size = 100, .sentinels = 100}), ConfigError);
  EXPECT_THROW(UnigramTrainer({.sentinels = -1}), ConfigError);
  EXPECT_THROW(UnigramTrainer({.character_coverage = 0}), ConfigError);
  EXPECT_THROW(UnigramTrainer({.lines = 0}), ConfigError);
  EXPECT_THROW(trained(UnigramTrainer({}), {" \n\t\n"}), DataError);
}

}  // namespace
}  // namespace mixtape
