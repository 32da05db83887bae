// Loss scaler and schedules against traces of PyTorch, Megatron, Apex and transformers.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "train/optim/loss_scaler.h"
#include "train/optim/schedule.h"

namespace mixtape {
namespace {

nlohmann::json golden(const std::string& name) {
  return nlohmann::json::parse(std::ifstream(std::string(MIXTAPE_GOLDEN) + "/optim/" + name));
}

// fp16's scale over steps of which nothing but the overflows is known.
struct Scaler {
  explicit Scaler(const LossScaleConfig& loss_scale) {
    const PrecisionConfig config{.mode = PrecisionMode::fp16, .loss_scale = loss_scale};
    rule = loss_scale_rule(config);
    start_loss_scale(state, config);
  }
  void update(bool finite) {
    state.finite = finite;
    finish_attempt(state, rule);
  }
  float scale() const { return state.loss_scale; }

  LossScaleRule rule;
  StepState state;
};

TEST(LossScaler, FollowsPyTorch) {
  int traces = 0;
  for (const auto& trace : golden("grad_scaler.json")) {
    if (!trace.contains("rows")) continue;
    const auto& o = trace["options"];
    Scaler scaler({.initial = o["init_scale"],
                   .growth_interval = o["growth_interval"],
                   .growth = o["growth_factor"],
                   .backoff = o["backoff_factor"]});
    for (const auto& row : trace["rows"]) {
      EXPECT_EQ(scaler.scale(), float(row["scale_used"].get<double>()));
      scaler.update(row["overflow"].get<std::string>() == "0");
      EXPECT_EQ(scaler.scale(), float(row["scale_after"].get<double>()));
      EXPECT_EQ(scaler.state.growth_tracker, row["growth_tracker_after"].get<int64_t>());
    }
    ++traces;
  }
  EXPECT_EQ(traces, 5);
}

TEST(LossScaler, FollowsMegatronApexAndAFloor) {
  int traces = 0;
  for (const auto& trace : golden("grad_scaler.json")) {
    if (trace.contains("rows")) continue;
    const std::string rule = trace["rule"];
    LossScaleConfig config{.initial = trace.value("init", 65536.0), .growth_interval = 3, .min = 1};
    if (!rule.starts_with("floor")) config.hysteresis = 2;
    if (rule.starts_with("apex")) config.hysteresis_rule = HysteresisRule::apex;
    Scaler scaler(config);
    const std::string pattern = trace["pattern"];
    for (size_t i = 0; i < pattern.size(); ++i) {
      scaler.update(pattern[i] == '0');
      EXPECT_EQ(scaler.scale(), float(trace["scale_after"][i].get<double>())) << rule << ", step " << i;
    }
    ++traces;
  }
  EXPECT_EQ(traces, 3);
}

TEST(LossScaler, NeverGrowsToInfinity) {
  Scaler scaler({.initial = 0x1p127, .growth_interval = 1});
  scaler.update(true);
  EXPECT_EQ(scaler.scale(), 0x1p127f);
  EXPECT_EQ(scaler.state.growth_tracker, 0);
}

// Nobody is told that a lower scale will help when it will not.
TEST(LossScaler, SaysWhetherAnOverflowIsAnswered) {
  Scaler scaler({.initial = 4, .min = 1, .hysteresis = 2});
  const auto overflow = [&] {
    scaler.update(false);
    return scaler.state.scale_adapts != 0;
  };
  EXPECT_TRUE(overflow()) << "borne";
  EXPECT_TRUE(overflow()) << "4 to 2";
  EXPECT_TRUE(overflow()) << "2 to 1";
  EXPECT_FALSE(overflow()) << "1 is the least";
  EXPECT_EQ(scaler.state.overflows, 4);
  scaler.update(true);
  EXPECT_EQ(scaler.state.scale_adapts, 0);
  EXPECT_EQ(scaler.state.attempts, 5u);
  EXPECT_EQ(scaler.state.updates, 1u);
}

TEST(LossScaler, IsForFp16Alone) {
  const PrecisionConfig bf16{.mode = PrecisionMode::bf16};
  StepState state{.finite = 0};
  start_loss_scale(state, bf16);
  finish_attempt(state, loss_scale_rule(bf16));
  EXPECT_EQ(state.loss_scale, 1);
  EXPECT_EQ(state.overflows, 0);
  EXPECT_EQ(state.scale_adapts, 0);
}

// transformers' schedules after their warm-up, which differs from ours by design (its first update has rate 0).
TEST(Schedule, EqualsTransformersAfterTheWarmUp) {
  int compared = 0;
  for (const auto& trace : golden("schedules.json")) {
    const std::string name = trace.value("schedule", "");
    if (!trace.contains("warmup_steps") || !trace.contains("total_steps")) continue;
    ScheduleConfig config{.warmup_steps = trace["warmup_steps"]};
    const double peak = trace["base_lr"];
    const int64_t total = trace["total_steps"];
    if (name == "linear")
      config.name = ScheduleKind::linear;
    else if (name == "cosine")
      config.name = ScheduleKind::cosine;
    else if (name == "cosine_with_min_lr")
      config.name = ScheduleKind::cosine, config.min_lr = peak / 10;
    else if (name == "constant_with_warmup")
      config.name = ScheduleKind::constant;
    else if (name == "inverse_sqrt")
      config.name = ScheduleKind::inverse_sqrt;
    else if (name == "wsd_1_sqrt") {
      config.name = ScheduleKind::wsd, config.min_lr = peak / 10, config.decay_shape = DecayShape::sqrt;
      config.decay_steps = 20;
    } else
      continue;
    for (size_t i = 0; i < trace["steps"].size(); ++i) {
      const int64_t step = trace["steps"][i];
      // Beyond the end cosine rises again there; ours is held.
      if (step < config.warmup_steps || step > total) continue;
      EXPECT_NEAR(learning_rate(config, peak, step, total), trace["lr"][i].get<double>(), 1e-15) << name << " " << step;
      ++compared;
    }
  }
  EXPECT_GE(compared, 6 * 15);
}

TEST(Schedule, WarmUpNeverLosesTheFirstUpdate) {
  const ScheduleConfig config{.name = ScheduleKind::cosine, .warmup_steps = 9};
  for (int64_t i = 0; i < 9; ++i) EXPECT_DOUBLE_EQ(learning_rate(config, 1.0, i, 100), double(i + 1) / 10);
  EXPECT_DOUBLE_EQ(learning_rate(config, 1.0, 9, 100), 1.0);
}

// T5's, of which Adafactor's relative step is the same with a step that counts from 1.
TEST(Schedule, AConstantWarmUpMakesT5s) {
  const ScheduleConfig config{
      .name = ScheduleKind::inverse_sqrt, .warmup_steps = 10000, .warmup_shape = WarmupShape::constant};
  int compared = 0;
  for (const auto& trace : golden("schedules.json")) {
    if (trace.value("schedule", "") != "t5_adafactor") continue;
    for (const auto& value : trace["values"]) {
      EXPECT_NEAR(learning_rate(config, 0.01, value["step"], 1 << 20), value["lr"].get<double>(), 1e-15);
      ++compared;
    }
  }
  EXPECT_EQ(compared, 7);
}

TEST(Schedule, IsHeldBeyondTheEnd) {
  for (const ScheduleKind kind : {ScheduleKind::linear, ScheduleKind::cosine, ScheduleKind::wsd}) {
    const ScheduleConfig config{.name = kind, .warmup_steps = 5, .min_lr = 0.01};
    EXPECT_NEAR(learning_rate(config, 1.0, 100, 100), 0.01, 1e-15);
    EXPECT_NEAR(learning_rate(config, 1.0, 1000, 100), 0.01, 1e-15);
  }
}

}  // namespace
}  // namespace mixtape
