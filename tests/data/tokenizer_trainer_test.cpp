#include "train/data/tokenizer/bpe_trainer.h"

#include <gtest/gtest.h>

#include <unistd.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "core/base/error.h"

namespace mixtape {
namespace {

using Json = nlohmann::json;
using Ids = std::vector<int32_t>;

std::string golden(const std::string& name) { return std::string(MIXTAPE_GOLDEN) + "/tokenizers/" + name; }

std::vector<std::string> texts() {
  std::ifstream file(golden("bpe/cases.jsonl"));
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
  std::ifstream made(file), expected(golden("trained.json"));
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

TEST(BpeTrainer, RefusesWhatCannotWork) {
  EXPECT_THROW(BpeTrainer({.vocab_size = 256}), ConfigError);
  EXPECT_THROW(BpeTrainer({.vocab_size = 1 << 25}), ConfigError);
  EXPECT_THROW(BpeTrainer({.special_tokens = {"<a>", "<a>"}}), ConfigError);
  EXPECT_THROW(BpeTrainer({.special_tokens = {""}}), ConfigError);
  EXPECT_THROW(BpeTrainer({.special_tokens = {"Ġ"}}), ConfigError);
  EXPECT_THROW(BpeTrainer({.special_tokens = {"\xFF\xFF"}}), ConfigError);
  EXPECT_THROW(train({}, {}), DataError);
  EXPECT_THROW(train({}, {"", ""}), DataError);
}

}  // namespace
}  // namespace mixtape
