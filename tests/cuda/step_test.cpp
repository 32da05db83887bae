// The end of a micro-batch and of an attempt, on both devices: losses add up, keys and counters go on, fp16's scale
// follows its rule.
#include "core/ops/optimizer.h"
#include "tests/cuda/device.h"

namespace mixtape {
namespace {

std::vector<double> numbers(const StepState& s) {
  return {double(s.attempts),        double(s.updates),   double(s.micro_batch), s.loss,
          double(s.philox.k0),       double(s.philox.k1), double(s.loss_scale),  double(s.growth_tracker),
          double(s.hysteresis_left), double(s.overflows), double(s.scale_adapts)};
}

// Attempts of three micro-batches each; `pattern` says which overflow.
std::vector<std::vector<double>> attempts(Device d, const std::string& pattern) {
  const LossScaleRule rule{.active = true, .growth_interval = 2, .hysteresis = 2, .least = 0.5f};
  StepState state{.seed = 42, .loss_scale = 8, .hysteresis_left = 2};
  std::vector<std::vector<double>> states;
  for (const char c : pattern) {
    state.loss = 0;
    state.micro_batch = 0;
    state.finite = c == '0';
    StepState* const s = d.upload_state(state);
    for (const float loss : {0.1f, 0.7f, 1e-9f}) {
      const Tensor mean = d.upload(std::vector<float>{loss});
      finish_micro_batch(*d, {.state = s, .mean = mean});
    }
    finish_attempt(*d, {.state = s, .rule = rule});
    state = d.state();
    states.push_back(numbers(state));
  }
  return states;
}

TEST(EmulatedStep, GoesOnLikeTheCpus) {
  const std::string pattern = "0011110001000111110000";
  const auto want = attempts(cpu(), pattern), got = attempts(emulated(), pattern);
  EXPECT_EQ(got, want);
  EXPECT_EQ(want.back()[0], 22);
  EXPECT_EQ(want.back()[1], 12);
  EXPECT_EQ(want.back()[3], double(0.1f) + double(0.7f) + double(1e-9f));
  EXPECT_EQ(want.back()[4], double(philox_key(42, 21, 3).k0));
}

}  // namespace
}  // namespace mixtape
