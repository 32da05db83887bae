#include "train/optim/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace mixtape {
namespace {

// From 1 to 0 as p goes from 0 to 1.
double shape(DecayShape kind, double p) {
  switch (kind) {
    case DecayShape::linear:
      return 1 - p;
    case DecayShape::cosine:
      return 0.5 * (1 + std::cos(std::numbers::pi * p));
    case DecayShape::sqrt:
      return 1 - std::sqrt(p);
  }
  return 0;
}

double progress(int64_t step, int64_t begin, int64_t end) {
  if (end <= begin) return step < end ? 0.0 : 1.0;
  return std::clamp(double(step - begin) / double(end - begin), 0.0, 1.0);
}

}  // namespace

double learning_rate(const ScheduleConfig& config, double peak, int64_t step, int64_t total_steps) {
  const int64_t warmup = config.warmup_steps;
  if (step < warmup)
    return config.warmup_shape == WarmupShape::constant ? peak : peak * double(step + 1) / double(warmup + 1);
  const double low = std::min(config.min_lr, peak);
  switch (config.name) {
    case ScheduleKind::constant:
      return peak;
    case ScheduleKind::linear:
    case ScheduleKind::cosine: {
      const double p = progress(step, warmup, config.decay_steps.value_or(total_steps));
      return low +
             (peak - low) * shape(config.name == ScheduleKind::linear ? DecayShape::linear : DecayShape::cosine, p);
    }
    case ScheduleKind::inverse_sqrt: {
      const double w = double(std::max<int64_t>(warmup, 1));
      return peak * std::sqrt(w / std::max(double(step), w));
    }
    case ScheduleKind::wsd: {
      const int64_t decay = config.decay_steps.value_or(std::max<int64_t>(total_steps / 10, 1));
      const double p = progress(step, std::max(total_steps - decay, warmup), total_steps);
      return low + (peak - low) * shape(config.decay_shape, p);
    }
  }
  return peak;
}

}  // namespace mixtape
