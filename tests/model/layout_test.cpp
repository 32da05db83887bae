// Parameter counts of all presets to the last digit, and the layout's promises.
#include <gtest/gtest.h>

#include <set>

#include "core/cpu/backend.h"
#include "core/model/transformer.h"
#include "tests/support/preset_counts.h"
#include "train/checkpoint/huggingface/model.h"
#include "train/config/config.h"

namespace mixtape {
namespace {

ModelSpec preset(std::string_view name) {
  return parse_config(fmt::format("model: {{preset: {}}}", name), "test").config.model;
}

TEST(Layout, EveryPresetCountsItsParameters) {
  for (const PresetCount& c : preset_counts) {
    const ModelSpec spec = preset(c.name);
    const Transformer model(spec, 128);
    EXPECT_EQ(model.layout().parameter_count(), c.parameters) << c.name;
  }
}

TEST(Layout, NamesAndShapesAreThoseOfCheckpoints) {
  for (const char* name : {"gpt2", "llama-3-8b", "bloom-560m", "opt-125m", "bert-base", "roberta-base", "t5-small",
                           "t5-v1.1-small", "bart-base", "transformer-base"}) {
    const ModelSpec spec = preset(name);
    const Transformer model(spec, 128);
    const std::vector<ParameterShape> expected = parameter_shapes(spec);
    ASSERT_EQ(expected.size(), size_t(model.layout().size())) << name;
    for (const ParameterShape& p : expected) {
      const ParameterEntry& entry = model.layout()[model.layout().find(p.name)];
      ASSERT_EQ(size_t(entry.shape.rank()), p.shape.size()) << p.name;
      for (int i = 0; i < entry.shape.rank(); ++i) EXPECT_EQ(entry.shape[i], p.shape[size_t(i)]) << p.name;
    }
  }
}

TEST(Layout, RangesAreAlignedDisjointAndInTheOrderOfBackward) {
  const Transformer model(preset("llama-1b"), 128);
  int64_t end = 0;
  for (int id = model.layout().size() - 1; id >= 0; --id) {
    const ParameterEntry& entry = model.layout()[id];
    EXPECT_EQ(entry.offset % ParameterLayout::alignment, 0);
    EXPECT_GE(entry.offset, end) << entry.name;
    end = entry.offset + entry.count();
  }
  EXPECT_GE(model.layout().flat_count(), end);
  EXPECT_LT(model.layout().find("embedding.token"), model.layout().find("layers.0.norm1.weight"));
}

TEST(Layout, UpdateRangesCoverEachElementOnceAndStayInTheirChunk) {
  const Transformer model(ModelSpec{.n_layers = 2, .d_model = 96, .n_heads = 4, .vocab_size = 1000}, 64);
  Arena arena;
  CpuBackend backend;
  backend.bind(arena);
  const Parameters parameters(model.layout(), {}, backend);
  int64_t covered = 0, end = 0;
  for (const UpdateRange& r : parameters.update_ranges(0.1f)) {
    EXPECT_GE(r.offset, end);
    EXPECT_EQ(r.offset / chunk_elements, (r.offset + r.count - 1) / chunk_elements);
    covered += r.count;
    end = r.offset + r.count;
  }
  EXPECT_EQ(covered, model.layout().parameter_count());
}

// As one matrix they would share moments and a scale, and T5's queries are eight times smaller than its keys.
TEST(Layout, UpdateRulesSeeQueriesKeysAndValuesApart) {
  for (const char* name : {"llama-3-8b", "t5-v1.1-small", "gpt2", "bert-base"}) {
    const ModelSpec spec = preset(name);
    const Transformer model(spec, 128);
    Arena arena;
    CpuBackend backend;
    backend.bind(arena);
    const Parameters parameters(model.layout(), {}, backend);
    const std::vector<UpdateTensor> tensors = parameters.update_tensors(0.1f);
    int64_t elements = 0, end = 0;
    std::vector<int> owners(size_t(model.layout().factored_count()));
    const auto own = [&](int64_t begin, int64_t count) {
      for (int64_t i = begin; i < begin + count; ++i) ++owners[size_t(i)];
    };
    for (const UpdateTensor& t : tensors) {
      EXPECT_GE(t.offset, end) << name;
      end = t.offset + t.count();
      elements += t.count();
      own(t.column_moments, t.cols);
      if (t.rows > 1) own(t.row_moments, t.rows);
    }
    EXPECT_EQ(elements, model.layout().parameter_count()) << name;
    EXPECT_EQ(std::set<int>(owners.begin(), owners.end()), std::set<int>{1}) << name << ": moments of two or of none";
    EXPECT_LT(model.layout().factored_count(), elements / 100) << name;

    const ParameterEntry& qkv = model.layout()[model.layout().find(spec.family == Family::encoder_decoder
                                                                       ? "decoder.layers.1.attention.qkv.weight"
                                                                       : "layers.1.attention.qkv.weight")];
    std::vector<int64_t> rows;
    for (const UpdateTensor& t : tensors)
      if (t.offset >= qkv.offset && t.offset < qkv.offset + qkv.count()) rows.push_back(t.rows);
    const int64_t width = spec.head_width();
    EXPECT_EQ(rows, (std::vector{spec.n_heads * width, spec.kv_heads() * width, spec.kv_heads() * width})) << name;
  }
}

TEST(Spec, WhatDoesNotGoTogetherIsRefused) {
  EXPECT_THROW(Transformer(ModelSpec{.d_model = 100, .n_heads = 3}, 64), ConfigError);
  EXPECT_THROW(Transformer(ModelSpec{.n_heads = 12, .n_kv_heads = 5}, 64), ConfigError);
  EXPECT_THROW(Transformer(ModelSpec{.n_heads = 1, .head_dim = 512}, 64), ConfigError);
  EXPECT_THROW(Transformer(ModelSpec{.family = Family::encoder, .position = Position::alibi}, 64), ConfigError);
}

}  // namespace
}  // namespace mixtape
