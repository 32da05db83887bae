// Gradients that are fused into the update: the same numbers in less memory.
#include <gtest/gtest.h>

#include <cmath>

#include "tests/train/tiny_run.h"
#include "train/step.h"

namespace mixtape {
namespace {

const std::vector<std::string> fused = {"precision.gradients=fused", "train.on_nonfinite.policy=stop"};

struct Trained {
  std::vector<std::vector<std::byte>> buffers;  // weights, master, moments
  std::vector<StepState> states;                // after each step
  std::vector<StepResult> results;
  MemoryPlan plan;
  int64_t largest_bucket = 0;
};

Trained train(std::vector<std::string> settings, const std::vector<std::string>& more = {}, int steps = 3,
              int spoilt_step = -1) {
  settings.insert(settings.end(), more.begin(), more.end());
  for (const char* setting : {"model.n_layers=3", "model.n_heads=2"}) settings.push_back(setting);
  const Config config = tiny_config(settings);
  const EngineOptions options = training_options(config);
  Trained run{.plan = plan_training(options, config)};
  Engine engine(options, run.plan.peak);
  Parameters& p = engine.parameters();
  p.initialise(1);
  TrainingStep step(engine, config);
  for (int i = 0; i < steps; ++i) {
    if (i == spoilt_step) {  // the gradients of the first layer and of the embeddings, which are complete last
      const int id = p.layout().find("layers.0.attention.qkv.weight");
      p.load(id, std::vector<float>(size_t(p.layout()[id].count()), 1e30f).data());
    }
    run.results.push_back(step.run(tiny_batch(), 1e-2));
    run.states.push_back(engine.state());
  }
  EXPECT_EQ(engine.arena().peak(), run.plan.peak);
  EXPECT_EQ(engine.arena().by_category()[int(Category::gradients)] == 0, options.gradient_memory.transient)
      << "given back after the step";
  run.buffers = all_bytes(engine);
  run.largest_bucket = p.buckets().largest();
  return run;
}

// In each mode beside gradients of the same type that are stored.
TEST(FusedUpdate, HasTheBitsOfTheUpdateAfterBackward) {
  struct Case {
    std::vector<std::string> settings;
    const char* stored;
  };
  const Case cases[] = {
      {{}, "fp32"},
      {{"model.tied_embeddings=false", "model.position=rope", "model.activation=swiglu", "model.norm=rmsnorm"}, "fp32"},
      {{"optimizer.scale_parameter=true"}, "fp32"},
      {{"optimizer.name=adafactor"}, "fp32"},
      {{"optimizer.name=adafactor", "optimizer.adafactor.beta1=0.9"}, "fp32"},
      {{"parameters.freeze=['embedding.*', 'layers.1.*']"}, "fp32"},
      {{"lora.rank=4"}, "fp32"},
      {{"precision.mode=bf16"}, "bf16"},
      {{"precision.mode=bf16", "precision.master=none", "precision.moments=int8"}, "bf16"},
      {{"precision.mode=bf16", "precision.master=remainder16", "precision.moments=fp8", "optimizer.name=lion"}, "bf16"},
      {{"precision.mode=bf16", "precision.moments=bf16", "optimizer.name=sgd"}, "bf16"},
      {{"optimizer.name=adam"}, "fp32"},
  };
  for (const Case& c : cases)
    for (const char* recompute : {"selective", "full"}) {
      SCOPED_TRACE(fmt::format("{} {}", fmt::join(c.settings, " "), recompute));
      std::vector<std::string> settings = c.settings;
      settings.insert(settings.end(), {"train.clip_grad=0", std::string("memory.recompute=") + recompute});
      const Trained stored = train(settings, {std::string("precision.gradients=") + c.stored});
      const Trained now = train(settings, fused);
      EXPECT_EQ(now.buffers, stored.buffers);
      for (size_t i = 0; i < now.results.size(); ++i) {
        EXPECT_EQ(now.results[i].loss, stored.results[i].loss);
        EXPECT_NEAR(now.results[i].grad_norm, stored.results[i].grad_norm, 1e-6 * stored.results[i].grad_norm);
      }
    }
}

TEST(FusedUpdate, TakesTheMemoryOfAFewBuckets) {
  const Trained stored = train({}), now = train({}, fused);
  EXPECT_LT(now.plan.peak, stored.plan.peak);
  EXPECT_GE(now.plan.at_peak[int(Category::gradients)], 0);
  EXPECT_LT(now.plan.at_peak[int(Category::gradients)], stored.plan.at_peak[int(Category::gradients)] / 2);
}

// By the larger of the norm of the step before and of this step's so far.
TEST(FusedUpdate, ClipsByTheStepBefore) {
  const float clip = 0.01f;
  const Trained now = train({"train.clip_grad=0.01", "train.clip_pass=never"}, fused);
  float before = 0;
  for (const StepState& s : now.states) {
    EXPECT_EQ(s.last_norm, before);
    EXPECT_GT(s.grad_norm, clip);
    EXPECT_FLOAT_EQ(s.grad_factor, clip / (std::max(s.grad_norm, before) + 1e-6f));
    before = s.grad_norm;
  }
  EXPECT_NE(now.buffers, train({"train.clip_grad=0"}, fused).buffers);
}

// As stored gradients are, but for the order in which squares are added.
TEST(FusedUpdate, ClipsByItsOwnNormAfterAPassThatMeasures) {
  const std::vector<std::string> settings = {"train.clip_grad=0.01", "model.dropout=0.1"};
  const Trained stored = train(settings);
  std::vector<std::string> always = fused;
  always.push_back("train.clip_pass=always");
  const Trained now = train(settings, always);
  for (size_t i = 0; i < now.states.size(); ++i) {
    EXPECT_EQ(now.states[i].last_norm, now.states[i].grad_norm) << "both passes have the same gradients";
    EXPECT_NEAR(now.states[i].grad_norm, stored.states[i].grad_norm, 1e-5 * stored.states[i].grad_norm);
    EXPECT_NEAR(now.states[i].grad_factor, stored.states[i].grad_factor, 1e-5 * stored.states[i].grad_factor);
    EXPECT_NEAR(now.results[i].loss, stored.results[i].loss, 1e-5);
    EXPECT_EQ(now.states[i].micro_batch, stored.states[i].micro_batch);
  }
}

TEST(FusedUpdate, MeasuresFirstWhileTheLearningRateWarmsUp) {
  const Trained now = train({"train.clip_grad=0.01", "schedule.warmup_steps=2"}, fused, 4);
  EXPECT_EQ(now.states[0].last_norm, now.states[0].grad_norm);
  EXPECT_EQ(now.states[1].last_norm, now.states[1].grad_norm);
  EXPECT_EQ(now.states[2].last_norm, now.states[1].grad_norm);
  EXPECT_EQ(now.states[3].last_norm, now.states[2].grad_norm);
  EXPECT_NE(now.states[3].last_norm, now.states[3].grad_norm);
}

TEST(FusedUpdate, AMeasuredStepThatIsNotFiniteIsSkipped) {
  std::vector<std::string> always = {"precision.gradients=fused", "train.clip_pass=always",
                                     "train.on_nonfinite.policy=skip"};
  const Trained good = train({}, always, 1), bad = train({}, always, 2, 1);
  EXPECT_FALSE(bad.results[1].finite);
  EXPECT_EQ(bad.states[1].updates, 1u);
  EXPECT_EQ(bad.states[1].attempts, 2u);
  EXPECT_EQ(bad.buffers[2], good.buffers[2]) << "moments";
  EXPECT_EQ(bad.buffers[4], good.buffers[4]) << "second moments";
}

// Without a measurement what was complete before is applied: such a step is not like one that never was.
TEST(FusedUpdate, ANonFiniteBucketEndsTheStep) {
  const std::vector<std::string> settings = {"train.clip_pass=never"};
  const Trained good = train(settings, fused, 2), bad = train(settings, fused, 2, 1);
  EXPECT_FALSE(bad.results[1].finite);
  EXPECT_EQ(bad.states[1].updates, 1u);
  EXPECT_EQ(bad.states[1].attempts, 2u);
  EXPECT_EQ(good.states[1].updates, 2u);
}

}  // namespace
}  // namespace mixtape
