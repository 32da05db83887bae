// Rotary frequencies and ALiBi slopes against transformers (tests/golden/models/positions.json).
#include "core/model/rotary.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/ops/attention.h"

namespace mixtape {
namespace {

nlohmann::json golden(const char* part) {
  return nlohmann::json::parse(std::ifstream(std::string(MIXTAPE_GOLDEN) + "/models/positions.json")).at(part);
}

TEST(Rotary, FrequenciesEqualTransformers) {
  int scaled = 0;
  for (const auto& c : golden("rope")) {
    ModelSpec spec;
    spec.rope_theta = c.contains("theta") ? c["theta"] : c["rope_theta"];
    if (c.contains("rope_type")) {
      spec.rope_scaling = {.type = RopeScalingKind::llama3,
                           .factor = c["factor"],
                           .low_freq_factor = c["low_freq_factor"],
                           .high_freq_factor = c["high_freq_factor"],
                           .original_max_positions = c["original_max_position_embeddings"]};
      ++scaled;
    }
    const int64_t dim = c["head_dim"];
    const std::vector<double> f = rotary_frequencies(spec, dim, 2048).inverse;
    ASSERT_EQ(f.size(), c["inverse_frequencies"].size());
    for (size_t i = 0; i < f.size(); ++i) {
      const double want = c["inverse_frequencies"][i];
      EXPECT_NEAR(f[i], want, 1e-12 * want) << "head_dim " << dim << ", column " << i;
    }
  }
  EXPECT_GE(scaled, 1);
}

TEST(Rotary, PublishedScalingsAtTheirEnds) {
  ModelSpec spec{.max_positions = 2048};
  const auto plain = rotary_frequencies(spec, 64, 2048).inverse;
  spec.rope_scaling = {.type = RopeScalingKind::linear, .factor = 4};
  EXPECT_DOUBLE_EQ(rotary_frequencies(spec, 64, 2048).inverse[5], plain[5] / 4);

  // Dynamic: nothing changes within the trained context; beyond it the slowest frequency covers the longer one.
  spec.rope_scaling = {.type = RopeScalingKind::dynamic, .factor = 2};
  EXPECT_EQ(rotary_frequencies(spec, 64, 2048).inverse, plain);
  EXPECT_LT(rotary_frequencies(spec, 64, 8192).inverse.back(), plain.back() / 6);
  EXPECT_DOUBLE_EQ(rotary_frequencies(spec, 64, 8192).inverse[0], 1);

  // YaRN: fast columns are kept, slow ones interpolated, and rotated vectors grow a little.
  spec.rope_scaling = {.type = RopeScalingKind::yarn, .factor = 8, .original_max_positions = 2048};
  const RotaryFrequencies yarn = rotary_frequencies(spec, 64, 16384);
  EXPECT_DOUBLE_EQ(yarn.inverse[0], plain[0]);
  EXPECT_DOUBLE_EQ(yarn.inverse.back(), plain.back() / 8);
  EXPECT_DOUBLE_EQ(yarn.attention_factor, 0.1 * std::log(8.0) + 1);
}

TEST(Rotary, TableHoldsCosinesThenSines) {
  const ModelSpec spec;
  const std::vector<float> table = rotary_table(spec, 8, 5);
  for (int p = 0; p < 5; ++p)
    for (int c = 0; c < 4; ++c) {
      const double angle = p * std::pow(10000.0, -2.0 * c / 8);
      EXPECT_NEAR(table[p * 8 + c], std::cos(angle), 1e-7);
      EXPECT_NEAR(table[p * 8 + 4 + c], std::sin(angle), 1e-7);
    }
}

TEST(Alibi, SlopesEqualTransformers) {
  const nlohmann::json all = golden("alibi_slopes");
  for (const auto& [heads, want] : all.items()) {
    std::vector<float> slopes(std::stoul(heads));
    alibi_slopes(slopes.data(), int64_t(slopes.size()));
    for (size_t h = 0; h < slopes.size(); ++h) EXPECT_FLOAT_EQ(slopes[h], want[h].get<float>()) << heads << " heads";
  }
}

}  // namespace
}  // namespace mixtape
