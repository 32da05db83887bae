// Composition: files, presets, overrides, aliases, and where each value came from.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "tests/config/support.h"
#include "train/config/config.h"

namespace mixtape {
namespace {

using std::filesystem::path;

class LoadTest : public testing::Test {
 protected:
  void SetUp() override { std::filesystem::create_directories(directory_ / "presets"); }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  path write(const std::string& name, const std::string& text) const {
    std::ofstream(directory_ / name) << text;
    return directory_ / name;
  }

  path directory_ = path(testing::TempDir()) /
                    (std::string("config_") + testing::UnitTest::GetInstance()->current_test_info()->name());
};

TEST_F(LoadTest, LaterFilesWinKeyByKey) {
  const path a = write("a.yaml", "optimizer: {lr: 1e-3, eps: 1e-7}\nseed: 1\n");
  const path b = write("b.yaml", "# only one key\noptimizer:\n  lr: 2e-3\n");
  const ResolvedConfig r = load_config({a, b});
  EXPECT_EQ(r.config.optimizer.lr, 2e-3);
  EXPECT_EQ(r.config.optimizer.eps, 1e-7);
  EXPECT_EQ(r.config.seed, 1);
  EXPECT_EQ(r.config.optimizer.weight_decay, 0.1);
  EXPECT_EQ(r.origins.at("optimizer.lr").text(), b.string() + ":3");
  EXPECT_EQ(r.origins.at("optimizer.eps").text(), a.string() + ":1");
  EXPECT_FALSE(r.origins.contains("optimizer.weight_decay"));
}

TEST_F(LoadTest, AnEmptySectionTakesNothingAway) {
  const path a = write("a.yaml", "eval: {interval: 7}\n");
  const path b = write("b.yaml", "eval:\n#  interval: 9\n");
  EXPECT_EQ(load_config({a, b}).config.eval.interval, 7);
}

TEST_F(LoadTest, ListsAreReplacedAsAWhole) {
  const path a = write("a.yaml", "data: {sources: [{path: x}, {path: y}]}\n");
  const path b = write("b.yaml", "data:\n  sources:\n    - {path: some/z, weight: 3, max_epochs: 1.5}\n");
  const ResolvedConfig r = load_config({a, b});
  ASSERT_EQ(r.config.data.sources.size(), 1u);
  EXPECT_EQ(r.config.data.sources[0].path, "some/z");
  EXPECT_EQ(r.config.data.sources[0].name, "z");
  EXPECT_EQ(r.config.data.sources[0].max_epochs, 1.5);
  EXPECT_EQ(r.origins.at("data.sources[0].path").line, 3);
  EXPECT_EQ(r.origins.at("data.sources[0].name").kind, Origin::derived);
}

TEST_F(LoadTest, TheCommandLineWinsOverFiles) {
  const path a = write("a.yaml", "optimizer: {lr: 1e-3}\n");
  const ResolvedConfig r = load_arguments({a.string(), "optimizer.lr=3e-4", "--train.max_steps=5", "seed=1", "seed=2",
                                           "logging.sample_prompts=[\"Once, upon\", b]"});
  EXPECT_EQ(r.config.optimizer.lr, 3e-4);
  EXPECT_EQ(r.config.train.max_steps, 5);
  EXPECT_EQ(r.config.seed, 2);
  EXPECT_EQ(r.config.logging.sample_prompts, (std::vector<std::string>{"Once, upon", "b"}));
  EXPECT_EQ(r.origins.at("optimizer.lr").text(), "command line");
}

TEST_F(LoadTest, APresetLiesBelowEverything) {
  write("presets/tiny.yaml", "# a comment\nn_layers: 2\nn_embd: 32\nn_heads: 4\n");
  const path a = write("a.yaml", "model:\n  d_model: 64\n  preset: tiny\n");
  const ResolvedConfig r = load_config({a}, {"model.n_heads=8"});
  EXPECT_EQ(r.config.model.n_layers, 2);
  EXPECT_EQ(r.config.model.d_model, 64);
  EXPECT_EQ(r.config.model.n_heads, 8);
  EXPECT_EQ(r.config.model.preset, "tiny");
  EXPECT_EQ(r.origins.at("model.n_layers").kind, Origin::preset);
  EXPECT_EQ(r.origins.at("model.n_layers").text(), (directory_ / "presets/tiny.yaml").string() + ":2");
  EXPECT_EQ(r.origins.at("model.d_model").text(), a.string() + ":2");
}

TEST_F(LoadTest, PresetsAreFoundInTheConfiguredDirectory) {
  write("presets/mine.yaml", "n_layers: 3\n");
  setenv("MIXTAPE_CONFIG_DIR", directory_.c_str(), 1);
  EXPECT_EQ(load_config({}, {"model.preset=mine"}).config.model.n_layers, 3);
  unsetenv("MIXTAPE_CONFIG_DIR");
  EXPECT_THROW(load_config({}, {"model.preset=mine"}), ConfigError);
}

TEST_F(LoadTest, AnErrorInAPresetNamesTheFileAndLine) {
  const path preset = write("presets/tiny.yaml", "n_layers: 2\nheads: 4\n");
  const path a = write("a.yaml", "model: {preset: tiny}\n");
  expect_error([&] { load_config({a}); }, preset.string() + ":2: model.heads: unknown key");
  write("presets/tiny.yaml", "preset: gpt2\n");
  expect_error([&] { load_config({a}); }, "a preset cannot be made of another");
}

TEST_F(LoadTest, AnUnknownPresetIsAnErrorWithTheKnownOnes) {
  expect_error([] { load_config({}, {"model.preset=gpt-2"}); }, "did you mean 'gpt2'?");
  expect_error([] { load_config({}, {"model.preset=nothing-like-it"}); }, "llama-7b");
  for (const char* hostile : {"../presets/gpt2", "/etc/passwd", "..", "[]", "''x"})
    EXPECT_THROW(load_config({}, {std::string("model.preset=") + hostile}), ConfigError) << hostile;
}

TEST_F(LoadTest, FilesThatCannotBeReadSayWhy) {
  expect_error([] { load_config({path("/nowhere/x.yaml")}); }, "/nowhere/x.yaml: cannot be opened (No such file");
  expect_error([&] { load_config({directory_}); }, "a directory, expected a YAML file");
  expect_error([] { load_arguments({"--orgins"}); }, "'--orgins' is no option");
  expect_error([] { load_config({}, {"lr"}); }, "'lr' is neither a file nor key=value");
  expect_error([] { load_config({}, {"=1"}); }, "neither a file nor key=value");
}

TEST(Aliases, AreAcceptedAndReported) {
  const ResolvedConfig r = parse_config(
      "model: {n_layer: 3, hidden_size: 96, num_attention_heads: 6, num_key_value_heads: 2, intermediate_size: 100,\n"
      "        block_size: 77, rms_norm_eps: 1e-6, tie_word_embeddings: false}\n"
      "train: {grad_clip: 0.5}\n",
      "a.yaml");
  EXPECT_EQ(r.config.model.n_layers, 3);
  EXPECT_EQ(r.config.model.d_model, 96);
  EXPECT_EQ(r.config.model.n_heads, 6);
  EXPECT_EQ(r.config.model.n_kv_heads, 2);
  EXPECT_EQ(r.config.model.d_ff, 100);
  EXPECT_EQ(r.config.model.max_positions, 77);
  EXPECT_EQ(r.config.model.norm_eps, 1e-6);
  EXPECT_FALSE(r.config.model.tied_embeddings);
  EXPECT_EQ(r.config.train.clip_grad, 0.5);
  EXPECT_EQ(r.origins.at("model.max_positions").text(), "a.yaml:2");
}

TEST(Aliases, BothNamesAreAnError) {
  expect_error([] { parse_config("model:\n  d_model: 64\n  n_embd: 64\n", "a.yaml"); },
               "a.yaml:3: model.d_model is given twice, as 'n_embd' and as 'd_model' (in line 2); keep one");
  expect_error([] { parse_config("model:\n  n_embd: 64\n  d_model: 64\n", "a.yaml"); }, "is given twice");
  expect_error([] { parse_config("model:\n  n_embd: 64\n  hidden_size: 64\n", "a.yaml"); }, "is given twice");
}

TEST(Aliases, OfDifferentLayersOverrideEachOther) {
  EXPECT_EQ(parse_config("model: {n_embd: 64}\n", "a.yaml", {"model.d_model=128"}).config.model.d_model, 128);
}

TEST(UnknownKeys, AreErrorsWithASuggestion) {
  const auto error_of = [](const char* yaml) { return error_text([&] { parse_config(yaml, "configs/gpt2.yaml"); }); };
  EXPECT_EQ(error_of("\noptimizer:\n  beta_2: 0.9\n"),
            "configs/gpt2.yaml:3: optimizer.beta_2: unknown key; did you mean 'betas'?");
  EXPECT_EQ(error_of("optimiser: {lr: 1}\n"), "configs/gpt2.yaml:1: optimiser: unknown key; did you mean 'optimizer'?");
  EXPECT_EQ(error_of("train: {lr: 1}\n"), "configs/gpt2.yaml:1: train.lr: unknown key; did you mean 'optimizer.lr'?");
  EXPECT_EQ(error_of("model: {num_hiden_layers: 1}\n"),
            "configs/gpt2.yaml:1: model.num_hiden_layers: unknown key; did you mean 'n_layers'?");
  EXPECT_EQ(error_of("zzzzzzzz: 1\n"), "configs/gpt2.yaml:1: zzzzzzzz: unknown key");
  EXPECT_EQ(error_of("data:\n  sources:\n  - path: a\n    wieght: 2\n"),
            "configs/gpt2.yaml:4: data.sources[0].wieght: unknown key; did you mean 'weight'?");
  EXPECT_EQ(error_text([] { load_config({}, {"optimizer.beta_2=1"}); }),
            "command line: optimizer.beta_2: unknown key; did you mean 'betas'?");
}

TEST(Derived, ZerosOfTheModelAreReplaced) {
  const ResolvedConfig r = parse_config("model: {d_model: 96, n_heads: 6}\n", "a.yaml");
  EXPECT_EQ(r.config.model.n_kv_heads, 6);
  EXPECT_EQ(r.config.model.head_dim, 16);
  EXPECT_EQ(r.config.model.d_ff, 384);
  EXPECT_EQ(r.origins.at("model.d_ff").text(), "derived");
}

TEST(Length, IsInStepsOrTokens) {
  const auto steps = [](const char* train) {
    return parse_config(std::string("data: {seq_length: 100}\ntrain: ") + train, "a.yaml").config.total_steps();
  };
  EXPECT_EQ(steps("{max_steps: 7}"), 7);
  EXPECT_EQ(steps("{max_tokens: 10000, global_batch_size: 10, micro_batch_size: 5}"), 10);
  EXPECT_EQ(steps("{max_tokens: 10001, global_batch_size: 10, micro_batch_size: 5}"), 11);
  EXPECT_EQ(steps("{}"), 0);
}

TEST(Length, ABatchGrowsToItsSize) {
  const Config c = parse_config(
                       "data: {seq_length: 100}\n"
                       "train: {max_tokens: 20000, micro_batch_size: 2, global_batch_size: 10,\n"
                       "        batch_ramp: {tokens: 8000}}",
                       "a.yaml")
                       .config;
  // From 2 to 10 sequences over 80 sequences, in steps of 2.
  std::vector<int64_t> sizes;
  int64_t samples = 0;
  for (; samples < 200; samples += sizes.back()) sizes.push_back(c.batch_size_at(samples));
  EXPECT_EQ(c.batch_size_at(0), 2);
  EXPECT_EQ(c.batch_size_at(39), 4);
  EXPECT_EQ(c.batch_size_at(40), 6);
  EXPECT_EQ(c.batch_size_at(79), 8);
  EXPECT_EQ(c.batch_size_at(80), 10);
  EXPECT_TRUE(std::ranges::is_sorted(sizes));
  EXPECT_EQ(c.total_steps(), int64_t(sizes.size()));
}

}  // namespace
}  // namespace mixtape
