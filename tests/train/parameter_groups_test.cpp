// Which parameters learn, and how fast.
#include "train/optim/parameter_groups.h"

#include <gtest/gtest.h>

#include "core/cpu/backend.h"
#include "core/model/transformer.h"
#include "tests/train/tiny_run.h"
#include "train/config/config.h"
#include "train/step.h"

namespace mixtape {
namespace {

Config tiny_groups(const std::vector<std::string>& more) {
  std::vector<std::string> overrides{"model.n_layers=3", "model.n_heads=2", "optimizer.weight_decay=0.5"};
  overrides.insert(overrides.end(), more.begin(), more.end());
  return tiny_config(overrides);
}

// A run of some steps, and its parameters before and after.
struct GroupsTraining {
  Config config;
  EngineOptions options = training_options(config);
  Engine engine{options, plan_training(options, config).peak};
  std::vector<std::vector<float>> before, after;

  explicit GroupsTraining(const std::vector<std::string>& overrides, int steps = 3) : config(tiny_groups(overrides)) {
    engine.parameters().initialise(1);
    TrainingStep step(engine, config);
    before = values();
    for (int i = 0; i < steps; ++i) step.run(tiny_batch(), 1e-2);
    after = values();
  }
  std::vector<std::vector<float>> values() {
    std::vector<std::vector<float>> all;
    const ParameterLayout& layout = engine.model().layout();
    for (int id = 0; id < layout.size(); ++id) {
      all.emplace_back(size_t(layout[id].count()));
      engine.parameters().store(id, all.back().data());
    }
    return all;
  }
  int id(const std::string& name) const { return engine.model().layout().find(name); }
  bool changed(const std::string& name) const { return before[size_t(id(name))] != after[size_t(id(name))]; }
};

TEST(Freeze, FrozenParametersStayAndTheOthersLearn) {
  for (const char* mode : {"fp32", "bf16"}) {
    SCOPED_TRACE(mode);
    const GroupsTraining run(
        {"parameters.freeze=['embedding.*', 'layers.[01].*']", std::string("precision.mode=") + mode});
    EXPECT_FALSE(run.changed("embedding.token"));  // tied: not through the output layer either
    EXPECT_FALSE(run.changed("embedding.position"));
    EXPECT_FALSE(run.changed("layers.0.attention.qkv.weight"));
    EXPECT_FALSE(run.changed("layers.1.norm2.bias"));
    EXPECT_TRUE(run.changed("layers.2.attention.qkv.weight"));
    EXPECT_TRUE(run.changed("layers.2.norm1.bias"));
    EXPECT_TRUE(run.changed("final_norm.weight"));
  }
}

// What learns has the same gradients as if nothing were frozen: one step from the same weights gives the same values
// where the clip factor is the same.
TEST(Freeze, TheOthersLearnAsBefore) {
  const GroupsTraining all({"train.clip_grad=0"}, 1),
      some({"train.clip_grad=0", "parameters.freeze=['layers.1.*', '*.position']"}, 1);
  for (const char* name : {"embedding.token", "layers.0.mlp.up.weight", "layers.2.norm1.bias", "final_norm.weight"})
    EXPECT_EQ(all.after[size_t(all.id(name))], some.after[size_t(some.id(name))]) << name;
  EXPECT_FALSE(some.changed("layers.1.mlp.up.weight"));
}

TEST(Freeze, TakesNoMemoryForGradientsAndOptimizer) {
  const GroupsTraining run({"parameters.freeze=['layers.*']", "precision.mode=bf16"}, 1);
  const ParameterLayout& layout = run.engine.model().layout();
  const Parameters& p = const_cast<GroupsTraining&>(run).engine.parameters();
  EXPECT_LT(layout.learning_flat_count(), layout.flat_count() / 2);
  EXPECT_EQ(p.gradients.count(), layout.learning_flat_count());
  for (const FlatState& s : {p.m.values, p.v.values, p.master}) EXPECT_EQ(s.count(), layout.learning_flat_count());
  EXPECT_EQ(p.weights.count(), layout.flat_count());
  const Config whole = tiny_groups({"precision.mode=bf16"});
  const MemoryPlan plan = plan_training(run.options, run.config), full = plan_training(training_options(whole), whole);
  for (const Category c : {Category::gradients, Category::optimizer, Category::master})
    EXPECT_LT(plan.at_peak[int(c)], full.at_peak[int(c)] / 2);
}

// Below the first layer that learns nothing is kept for backward.
TEST(Freeze, KeepsNoActivationsOfFrozenLayersBelow) {
  const Config whole = tiny_groups({}), top = tiny_groups({"parameters.freeze=['embedding.*', 'layers.[01].*']"});
  const auto activations = [](const Config& c) {
    return plan_training(training_options(c), c).at_peak[int(Category::activations)];
  };
  EXPECT_LT(double(activations(top)), 0.6 * double(activations(whole)));
}

TEST(Freeze, WorksWithRecomputation) {
  const std::string freeze = "parameters.freeze=['embedding.*', 'layers.0.*']";
  const GroupsTraining none({freeze}), full({freeze, "memory.recompute=full"});
  EXPECT_EQ(none.after, full.after);
}

TEST(ParameterGroups, FactorsChangeTheStepAndTheDecay) {
  // Without gradients into them there is decay alone: positions beyond the batch, say; so look at a zero rate instead.
  const GroupsTraining still({"parameters.groups=[{match: 'layers.0.*', lr_factor: 0}]"});
  EXPECT_FALSE(still.changed("layers.0.attention.qkv.weight"));
  EXPECT_TRUE(still.changed("layers.1.attention.qkv.weight"));

  const Transformer model(still.config.model, 16);
  const auto factors =
      parameter_factors(model.layout(), load_config({}, {"parameters.groups=[{match: '*', lr_factor: 2}, "
                                                         "{match: '*.mlp.*', weight_decay_factor: 3}]"})
                                            .config.parameters);
  EXPECT_EQ(factors[size_t(model.layout().find("layers.0.mlp.up.weight"))].lr, 1);  // the last group counts
  EXPECT_EQ(factors[size_t(model.layout().find("layers.0.mlp.up.weight"))].weight_decay, 3);
  EXPECT_EQ(factors[size_t(model.layout().find("embedding.token"))].lr, 2);
  Arena arena;
  CpuBackend backend;
  backend.bind(arena);
  const Parameters parameters(model.layout(), {}, backend);
  bool seen_matrix = false, seen_bias = false;
  for (const UpdateRange& r : parameters.update_ranges(0.5f, factors)) {
    const ParameterEntry& up = model.layout()[model.layout().find("layers.0.mlp.up.weight")];
    const ParameterEntry& bias = model.layout()[model.layout().find("layers.0.mlp.up.bias")];
    if (r.offset == up.offset) seen_matrix = r.weight_decay == 1.5f && r.lr_factor == 1;
    if (r.offset == bias.offset) seen_bias = r.weight_decay == 0;
  }
  EXPECT_TRUE(seen_matrix);
  EXPECT_TRUE(seen_bias);
}

TEST(ParameterGroups, PatternsThatMatchNothingAreRefused) {
  const auto error = [](const std::string& setting) {
    try {
      const Config config = tiny_groups({setting});
      const EngineOptions options = training_options(config);
      plan_training(options, config);
    } catch (const ConfigError& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  EXPECT_NE(
      error("parameters.freeze=['embedding.*', 'layer.0.*']").find("parameters.freeze[1]: 'layer.0.*' matches nothing"),
      std::string::npos);
  EXPECT_NE(error("parameters.freeze=['layer.0.*']").find("layers.0.attention.qkv.weight"), std::string::npos);
  EXPECT_NE(
      error("parameters.groups=[{match: classifier, lr_factor: 2}]").find("parameters.groups[0].match: 'classifier'"),
      std::string::npos);
  EXPECT_NE(error("parameters.freeze=['*']").find("nothing learns"), std::string::npos);
  EXPECT_EQ(error("parameters.freeze=['*.0.*']"), "");
}

TEST(ParameterGroups, PatternsAreOfWholeNames) {
  EXPECT_TRUE(matches_name("layers.10.mlp.up.bias", "layers.*.bias"));
  EXPECT_FALSE(matches_name("layers.10.mlp.up.bias", "layers.1.*"));
  EXPECT_TRUE(matches_name("layers.3.mlp.up.bias", "layers.[0-5].*"));
  EXPECT_FALSE(matches_name("layers.3.mlp.up.bias", "mlp"));
}

}  // namespace
}  // namespace mixtape
