// Presets hold the published architectures, and every recipe in configs/ passes the checks.
#include <gtest/gtest.h>

#include <set>

#include "tests/support/preset_counts.h"
#include "train/config/config.h"

namespace mixtape {
namespace {

// Counted by hand from the shapes, independently of the model's own layout. Of one stack:
int64_t count_stack(const ModelSpec& m, int64_t layers, bool cross) {
  const int64_t d = m.d_model, ff = m.ff_width(), q = m.n_heads * m.head_width(), kv = m.kv_heads() * m.head_width();
  const int64_t norm = m.norm == NormKind::layernorm && m.bias ? 2 * d : d;
  const int64_t inner = is_gated(m.activation) ? 2 * ff : ff;
  const int64_t attention = d * (q + 2 * kv) + q * d + (m.bias ? q + 2 * kv + d : 0);
  const int64_t mlp = d * inner + ff * d + (m.bias ? inner + d : 0);
  const int64_t tables = (m.position == Position::learned ? (m.max_positions + m.position_offset) * d : 0) +
                         (m.position == Position::relative_bias ? m.relative_buckets * m.n_heads : 0);
  return tables + layers * (cross ? 2 * attention + mlp + 3 * norm : attention + mlp + 2 * norm) +
         norm * ((m.embedding_norm ? 1 : 0) + (m.final_norm ? 1 : 0));
}

int64_t count(const ModelSpec& m) {
  const int64_t d = m.d_model, table = m.vocab_size * d;
  int64_t n = table * (m.tied_embeddings ? 1 : 2) + (m.lm_head_bias ? m.vocab_size : 0) + m.token_types * d;
  if (m.mlm_head) n += d * d + d + 2 * d;  // dense and norm, with biases
  n += count_stack(m, m.n_layers, false);
  if (m.family == Family::encoder_decoder) n += count_stack(m, m.decoder_layers(), true);
  return n;
}

TEST(Presets, HaveThePublishedCounts) {
  for (const auto& [name, parameters] : preset_counts) {
    const ResolvedConfig resolved = load_config({}, {"model.preset=" + std::string(name)});
    EXPECT_EQ(count(resolved.config.model), parameters) << name;
    EXPECT_NO_THROW(check_model(resolved.config, resolved.origins)) << name;
  }
}

TEST(Presets, EachHasAnExpectedCount) {
  std::set<std::string> counted;
  for (const PresetCount& preset : preset_counts) counted.emplace(preset.name);
  for (const std::string& name : preset_names()) EXPECT_TRUE(counted.contains(name)) << name;
  EXPECT_EQ(counted.size(), preset_names().size());
}

TEST(Presets, StateTheirInitialisation) {
  for (const auto& [name, parameters] : preset_counts) {
    const Origins origins = load_config({}, {"model.preset=" + std::string(name)}).origins;
    EXPECT_TRUE(origins.contains("model.init_std")) << name;
    EXPECT_TRUE(origins.contains("model.init_residual_scaled")) << name;
  }
}

TEST(Presets, AxesCanBeOverridden) {
  const Config c = load_config({}, {"model.d_model=256", "model.n_heads=4", "model.preset=gpt2"}).config;
  EXPECT_EQ(c.model.n_layers, 12);
  EXPECT_EQ(c.model.d_model, 256);
  EXPECT_EQ(c.model.head_dim, 64);
  EXPECT_EQ(c.model.d_ff, 1024);  // follows d_model: the preset does not repeat what follows
}

TEST(Recipes, PassTheChecks) {
  for (const char* name :
       {"quickstart", "gpt2-124m", "llama-134m", "char", "10m", "bert-base", "roberta-base", "t5-small", "t5-v1.1-base",
        "bart-base", "bloom-560m", "llama-7b", "transformer-base", "general", "domain-mix"}) {
    const std::string file = std::string(MIXTAPE_SOURCE "/configs/") + name + ".yaml";
    const ResolvedConfig resolved = load_config({std::filesystem::path(file)}, {});
    EXPECT_NO_THROW(check(resolved.config, resolved.origins)) << name;
    EXPECT_EQ(resolved.config.run.name, name);
  }
}

TEST(Recipes, HaveTheSizesTheyAreNamedAfter) {
  const auto parameters = [](const char* name) {
    return count(load_config({std::filesystem::path(std::string(MIXTAPE_SOURCE "/configs/") + name + ".yaml")}, {})
                     .config.model);
  };
  EXPECT_EQ(parameters("llama-134m"), 134105856);
  EXPECT_EQ(parameters("quickstart"), 5853184);
  EXPECT_EQ(parameters("10m"), 10818816);
}

}  // namespace
}  // namespace mixtape
