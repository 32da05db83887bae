#include "train/optim/loss_scaler.h"

namespace mixtape {

LossScaleRule loss_scale_rule(const PrecisionConfig& config) {
  const LossScaleConfig& c = config.loss_scale;
  return {.active = config.mode == PrecisionMode::fp16,
          .growth_interval = c.growth_interval,
          .hysteresis = c.hysteresis,
          .restarts_at_finite = c.hysteresis_rule == HysteresisRule::apex,
          .growth = c.growth,
          .backoff = c.backoff,
          .least = float(c.min)};
}

void start_loss_scale(StepState& state, const PrecisionConfig& config) {
  state.loss_scale = config.mode == PrecisionMode::fp16 ? float(config.loss_scale.initial) : 1.f;
  state.growth_tracker = state.overflows = 0;
  state.hysteresis_left = config.loss_scale.hysteresis;
}

}  // namespace mixtape
