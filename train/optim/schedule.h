// The learning rate as a pure function of the number of updates done.
#pragma once

#include <cstdint>

#include "train/config/schedule.h"

namespace mixtape {

// The rate of update `step` (0 is the first), of a run of `total_steps`.
//
//   warm-up     peak * (step + 1) / (warmup_steps + 1) while step < warmup_steps: the first update is never lost
//   constant    peak
//   linear      peak + (min_lr - peak) * p,  p = (step - warmup) / (decay_steps - warmup), held at 1 beyond
//   cosine      min_lr + (peak - min_lr) * (1 + cos(pi p)) / 2
//   inverse_sqrt  peak * sqrt(w / step), w = max(warmup_steps, 1)
//   wsd         peak, and over the last decay_steps down to min_lr by schedule.decay_shape
double learning_rate(const ScheduleConfig& config, double peak, int64_t step, int64_t total_steps);

}  // namespace mixtape
