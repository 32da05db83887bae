// Writing and reading back, comparison on resume, and the generated page.
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <sstream>

#include "tests/config/support.h"
#include "train/config/config.h"
#include "train/config/schema.h"

namespace mixtape {
namespace {

const char* const strange = R"(
seed: 9007199254740993
run: {name: "no", dir: "a b/c: d", init_from: "x #y"}
model: {preset: llama-3-8b, window_layers: [1, 2], qkv_bias: false, rope_scaling: {type: llama3, factor: 8.0}}
data:
  sources:
    - {name: "010", path: "päth \"quoted\" \\ back", weight: 0.1, max_epochs: 2.5, validation: null}
    - {path: /b}
  stages: [{from_tokens: 1000000, weights: [0.25, 1e-3]}, {from_tokens: 9000000, weights: [0, 1]}]
train: {max_tokens: 1000000000000, on_nonfinite: {policy: rollback, limit: 3}}
optimizer: {lr: 0.30000000000000004, eps: 1e-30}
runtime: {threads: 3}
parameters: {freeze: ["a: [b]*"], groups: [{match: "layers.[0-5].*", lr_factor: 0.1}]}
logging: {sample_prompts: ["", "true", "line\nbreak\ttab", "{a: b}", "- x", "null", "1e3"]}
)";

TEST(Write, ReadsBackAsItself) {
  const ResolvedConfig r = parse_config(strange, "a.yaml");
  for (const Origins* origins : {static_cast<const Origins*>(nullptr), &r.origins}) {
    const std::string yaml = to_yaml(r.config, origins);
    EXPECT_EQ(to_yaml(parse_resolved(yaml, "resolved")), to_yaml(r.config)) << yaml;
    EXPECT_EQ(to_yaml(parse_config(yaml, "resolved").config), to_yaml(r.config));
  }
  const Config back = parse_resolved(to_yaml(r.config), "resolved");
  EXPECT_EQ(back.seed, 9007199254740993);
  EXPECT_EQ(back.run.dir, "a b/c: d");
  EXPECT_EQ(back.data.sources[0].path, "p\xc3\xa4th \"quoted\" \\ back");
  EXPECT_EQ(back.data.sources[0].name, "010");
  EXPECT_EQ(back.optimizer.lr, 0.30000000000000004);
  EXPECT_EQ(back.logging.sample_prompts, r.config.logging.sample_prompts);
  EXPECT_EQ(back.model.n_kv_heads, 8);
}

TEST(Write, HoldsEveryKey) {
  const std::string yaml = to_yaml(parse_config(strange, "a.yaml").config);
  const auto expect_keys = [&](const auto& self, const Key& section) -> void {
    for (const Key& key : section.keys) {
      EXPECT_NE(yaml.find(key.name + ":"), std::string::npos) << key.name;
      self(self, key);
    }
  };
  expect_keys(expect_keys, schema());
}

TEST(Write, AResolvedConfigurationNeedsNoPreset) {
  Config c = parse_config("model: {preset: gpt2}", "a.yaml").config;
  c.model.preset = "a preset that is gone";
  EXPECT_EQ(parse_resolved(to_yaml(c), "resolved").model.n_layers, 12);
}

TEST(Write, OriginsStandInComments) {
  const ResolvedConfig r = parse_config("\noptimizer: {lr: 1e-3}\nmodel: {d_model: 64}", "a.yaml", {"seed=7"});
  const std::string yaml = to_yaml(r.config, &r.origins);
  const auto line_of = [&](const std::string& key) {
    const size_t start = yaml.find(key), end = yaml.find('\n', start);
    return yaml.substr(start, end - start);
  };
  EXPECT_NE(line_of("  lr:").find("# a.yaml:2"), std::string::npos) << line_of("  lr:");
  EXPECT_NE(line_of("seed:").find("# command line"), std::string::npos);
  EXPECT_NE(line_of("  d_ff:").find("# derived"), std::string::npos);
  EXPECT_NE(line_of("  eps:").find("# default"), std::string::npos);
}

std::vector<ConfigChange> changes(const std::string& before, const std::string& after) {
  return compare_for_resume(parse_config(before, "a.yaml").config, parse_config(after, "b.yaml").config);
}

TEST(Resume, NothingChanged) { EXPECT_TRUE(changes(strange, strange).empty()); }

TEST(Resume, LearningRateStepsBatchAndDataMayChange) {
  const auto all = changes("data: {sources: [{path: a}]}\ntrain: {max_steps: 10}",
                           "data: {sources: [{path: a, weight: 2}, {path: b}], seq_length: 128}\nseed: 2\n"
                           "train: {max_steps: 20, global_batch_size: 64, micro_batch_size: 8}\noptimizer: {lr: "
                           "1e-4}\nmodel: {dropout: 0.1}");
  std::vector<std::string> keys;
  for (const ConfigChange& c : all) {
    EXPECT_TRUE(c.allowed) << c.key;
    keys.push_back(c.key);
  }
  for (const char* key : {"data.sources[0].weight", "data.sources[1].path", "data.seq_length", "seed",
                          "train.max_steps", "train.global_batch_size", "optimizer.lr", "model.dropout"})
    EXPECT_TRUE(std::count(keys.begin(), keys.end(), key)) << key;
  EXPECT_NO_THROW(refuse_changes(all));
}

TEST(Resume, ModelTokenizerAndStorageMayNot) {
  for (const char* after : {"model: {n_layers: 3}", "model: {activation: relu}", "model: {rope_scaling: {factor: 2}}",
                            "data: {tokenizer: other.json}", "precision: {mode: bf16}", "precision: {moments: bf16}",
                            "optimizer: {name: lion}", "objective: {name: masked_lm}", "model: {vocab_size: 3}"}) {
    const auto all = changes("", after);
    ASSERT_EQ(all.size(), 1u) << after;
    EXPECT_FALSE(all[0].allowed) << after;
    EXPECT_FALSE(all[0].reason.empty()) << after;
  }
}

TEST(Resume, ARefusalNamesBothValuesAndTheReason) {
  const ResolvedConfig now = parse_config("\nmodel:\n  n_layers: 3\n", "b.yaml");
  const auto all = compare_for_resume(parse_config("", "a.yaml").config, now.config);
  EXPECT_EQ(
      error_text([&] { refuse_changes(all, now.origins); }),
      "b.yaml:3: model.n_layers is 3, but the checkpoint was trained with 12: the checkpoint's weights fit only the "
      "model they were trained in; start a new run with run.init_from");
}

TEST(Explain, LeavesAndSections) {
  const std::string lr = explain_key("optimizer.lr");
  for (const char* part : {"peak learning rate", "a number from 0 to 10", "0.0006", "learning_rate", "may change"})
    EXPECT_NE(lr.find(part), std::string::npos) << part << "\n" << lr;
  EXPECT_NE(explain_key("model.n_layers").find("refused: the checkpoint's weights"), std::string::npos);
  EXPECT_NE(explain_key("data.sources.weight").find("default    1"), std::string::npos);
  EXPECT_NE(explain_key("train").find("max_steps"), std::string::npos);
  expect_error([] { explain_key("optimizer.lrr"); }, "optimizer.lrr: unknown key; did you mean 'lr'?");
  expect_error([] { explain_key(""); }, "unknown key");
}

TEST(Schema, EveryKeyHasAHelpAndNoNameTwice) {
  const auto walk = [](const auto& self, const Key& section) -> void {
    std::vector<std::string_view> taken;
    const auto take = [&](std::string_view name) {
      EXPECT_FALSE(std::count(taken.begin(), taken.end(), name)) << name << " is taken in " << section.name;
      taken.push_back(name);
    };
    for (const Key& key : section.keys) {
      EXPECT_FALSE(key.help.empty()) << key.name;
      take(key.name);
      for (std::string_view alias : key.aliases.names)
        if (!alias.empty()) take(alias);
      self(self, key);
    }
  };
  walk(walk, schema());
}

TEST(Schema, DefaultsLieInTheirRanges) { EXPECT_NO_THROW(parse_resolved(to_yaml(Config{}), "defaults")); }

TEST(Documentation, IsCurrent) {
  std::ifstream stream(MIXTAPE_SOURCE "/docs/config.md");
  std::stringstream text;
  text << stream.rdbuf();
  EXPECT_EQ(text.str(), config_markdown()) << "docs/config.md is not current: run scripts/update_docs";
}

}  // namespace
}  // namespace mixtape
