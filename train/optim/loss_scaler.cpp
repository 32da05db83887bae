#include "train/optim/loss_scaler.h"

#include <algorithm>
#include <cmath>

namespace mixtape {

LossScaler::LossScaler(const LossScaleConfig& config)
    : config_(config), scale_(float(config.initial)), hysteresis_left_(config.hysteresis) {}

bool LossScaler::update(bool finite) {
  if (!finite) {
    ++overflows_;
    growth_tracker_ = 0;
    if (--hysteresis_left_ > 0) return true;
    // Without hysteresis the count starts again at each overflow; with it, as the rule says (below).
    if (config_.hysteresis == 1) hysteresis_left_ = 1;
    const float before = scale_;
    scale_ = std::max(float(scale_ * config_.backoff), float(config_.min));
    return scale_ < before && scale_ >= 1;
  }
  if (config_.hysteresis_rule == HysteresisRule::apex) hysteresis_left_ = config_.hysteresis;
  if (++growth_tracker_ < config_.growth_interval) return true;
  growth_tracker_ = 0;
  hysteresis_left_ = config_.hysteresis;
  // Growth that would overflow is not applied, as in PyTorch.
  const float grown = float(scale_ * config_.growth);
  if (std::isfinite(grown)) scale_ = grown;
  return true;
}

void LossScaler::restore(float scale, int64_t growth_tracker, int64_t hysteresis_left, int64_t overflows) {
  scale_ = scale;
  growth_tracker_ = growth_tracker;
  hysteresis_left_ = hysteresis_left;
  overflows_ = overflows;
}

}  // namespace mixtape
