// Training with rounded operands: what fp8 and int8 do to the loss, and how scales follow steps, skipped ones,
// micro-batches and recomputation.
#include "core/model/quantisation.h"

#include <gtest/gtest.h>

#include <cmath>
#include <optional>

#include "core/base/code_scale.h"
#include "tests/train/tiny_run.h"
#include "train/step.h"

namespace mixtape {
namespace {

// A run of two micro-batches a step.
struct TinyRun {
  Config config;
  std::optional<Engine> engine;
  std::optional<TrainingStep> step;

  explicit TinyRun(const std::vector<std::string>& settings) : config(tiny_config(settings)) {
    const EngineOptions options = training_options(config);
    engine.emplace(options, plan_training(options, config).peak);
    engine->parameters().initialise(1);
    step.emplace(*engine, config);
  }
  static GlobalBatch batch(const std::vector<int>& parts) {
    GlobalBatch global;
    for (const int part : parts) {
      Batch b = tiny_batch().micro_batches[0];
      for (size_t i = 0; i < b.tokens.size(); ++i) {
        b.tokens[i] = (b.tokens[i] + 11 * part) % 50;
        b.targets[i] = (b.tokens[i] + 3) % 50;
      }
      global.micro_batches.push_back(b);
    }
    global.n_targets = 64;
    return global;
  }
  StepResult train(double rate = 1e-2, const std::vector<int>& parts = {0, 1}) { return step->run(batch(parts), rate); }
  std::vector<float> get(const Tensor& t) {
    std::vector<float> values(size_t(t.count()));
    engine->backend().copy_to_host(values.data(), t);
    return values;
  }
  Quantisation& quantisation() { return *engine->quantisation(); }
};

const std::vector<std::string> fp8{"precision.mode=fp8", "precision.fp8.amax_history=3", "model.n_layers=2",
                                   "model.n_heads=2", "train.global_batch_size=4"};
std::vector<std::string> with(std::vector<std::string> settings, const std::string& more) {
  settings.push_back(more);
  return settings;
}

TEST(QuantisedTraining, LosesLittleBesideBf16) {
  const auto loss_with = [](const std::string& mode, const std::string& more) {
    TinyRun run({mode, more, "model.n_layers=2", "model.n_heads=2", "train.global_batch_size=4"});
    double loss = 0;
    for (int i = 0; i < 40; ++i) {
      const StepResult result = run.train(3e-3);
      EXPECT_TRUE(result.finite);
      loss = result.loss;
    }
    return loss;
  };
  for (const std::string activation : {"model.activation=gelu", "model.activation=swiglu"}) {
    const double bf16 = loss_with("precision.mode=bf16", activation);
    EXPECT_LT(bf16, 2) << "from log 50 = 3.9";
    for (const std::string mode : {"precision.mode=fp8", "precision.mode=int8_qat"}) {
      const double loss = loss_with(mode, activation);
      EXPECT_NEAR(loss, bf16, 0.05 * bf16) << mode << " " << activation;
      EXPECT_NE(loss, bf16) << mode;
    }
  }
}

TEST(QuantisedTraining, HasALayerForEachMatrixOfABlock) {
  TinyRun run(fp8);
  std::vector<std::string> names;
  for (const int id : run.quantisation().weights()) names.push_back(run.engine->model().layout()[id].name);
  EXPECT_EQ(names.size(), 8u);
  EXPECT_NE(std::find(names.begin(), names.end(), "layers.1.mlp.down.weight"), names.end());
  EXPECT_EQ(std::find(names.begin(), names.end(), "embedding.token"), names.end());
  EXPECT_EQ(TinyRun({"precision.mode=bf16", "model.n_heads=2"}).engine->quantisation(), nullptr);
}

TEST(QuantisedTraining, ScalesFollowTheHistory) {
  TinyRun run(fp8);
  Quantisation& q = run.quantisation();
  for (const float s : run.get(q.scale)) EXPECT_EQ(s, 0);
  for (int step = 0; step < 5; ++step) {
    run.train();
    const std::vector<float> scale = run.get(q.scale), history = run.get(q.history);
    for (size_t i = 0; i < scale.size(); ++i) {
      const float most = std::max({history[3 * i], history[3 * i + 1], history[3 * i + 2]});
      EXPECT_GT(history[3 * i + size_t(step % 3)], 0) << "operand " << i;
      EXPECT_EQ(scale[i], code_scale(i % 3 == 2 ? DType::e5m2 : DType::e4m3, most)) << i;
    }
    for (const float a : run.get(q.amax)) EXPECT_EQ(a, 0) << "that of the next step";
  }
}

// The largest of a step is that of its micro-batches, however often forward runs.
TEST(QuantisedTraining, MicroBatchesAndRecomputationCountOnce) {
  const auto history = [](const std::vector<int>& parts, const std::string& recompute) {
    TinyRun run(with(fp8, recompute));
    run.train(0, parts);
    return run.get(run.quantisation().history);
  };
  const std::string none = "memory.recompute=none";
  const std::vector<float> first = history({0}, none), second = history({1}, none), both = history({0, 1}, none);
  for (size_t i = 0; i < both.size(); ++i) EXPECT_EQ(both[i], std::max(first[i], second[i])) << i;
  EXPECT_NE(first, second);
  for (const std::string again : {"memory.recompute=selective", "memory.recompute=full"})
    EXPECT_EQ(history({0, 1}, again), both) << again;
}

TEST(QuantisedTraining, RecomputationChangesNoBit) {
  const auto losses = [](const std::string& mode, const std::string& recompute) {
    TinyRun run(with(with(fp8, recompute), "precision.mode=" + mode));
    std::vector<double> list;
    for (int i = 0; i < 4; ++i) list.push_back(run.train().loss);
    return list;
  };
  const std::vector<double> kept = losses("fp8", "memory.recompute=none");
  EXPECT_NE(kept[3], kept[0]);
  for (const std::string again : {"memory.recompute=selective", "memory.recompute=full"})
    EXPECT_EQ(losses("fp8", again), kept) << again;
}

// A weight of infinity makes the step not finite: it leaves no trace in weights, scales and history, and the next step
// has the bits of a run that never had it.
TEST(QuantisedTraining, ASkippedStepLeavesNoTrace) {
  TinyRun run(fp8), other(fp8);
  for (TinyRun* r : {&run, &other}) r->train(), r->train();
  Quantisation& q = run.quantisation();
  const Tensor weight = run.engine->parameters().weight(run.engine->model().layout().find("layers.0.norm1.weight"));
  const auto saved = weight.data<bf16>()[3];
  const std::vector<float> scale = run.get(q.scale), history = run.get(q.history);
  weight.data<bf16>()[3] = bf16(INFINITY);
  EXPECT_FALSE(run.train().finite);
  EXPECT_EQ(run.get(q.scale), scale);
  EXPECT_EQ(run.get(q.history), history);
  for (const float a : run.get(q.amax)) EXPECT_EQ(a, 0);
  weight.data<bf16>()[3] = saved;
  EXPECT_EQ(run.train().loss, other.train().loss);
  EXPECT_EQ(run.get(q.history), other.get(other.quantisation().history));
}

// Validation rounds by the scales of training and notes nothing.
TEST(QuantisedTraining, ValidationNotesNothing) {
  TinyRun run(fp8);
  run.train();
  run.engine->load(TinyRun::batch({5}).micro_batches[0]);
  run.engine->run_micro_batch(false);
  for (const float a : run.get(run.quantisation().amax)) EXPECT_EQ(a, 0);
}

}  // namespace
}  // namespace mixtape
