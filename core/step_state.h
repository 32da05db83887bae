// What changes from step to step, in device memory.
//
// Kernels read it through a pointer and never take these numbers as launch arguments, so a captured CUDA graph stays
// valid. `attempts` drives data and randomness, `updates` drives the learning rate and bias correction: a skipped step
// advances the first only. The host writes it before a step and reads it after; in between the device goes on alone,
// from one micro-batch to the next (next_micro_batch) and to the end of the attempt (finish_attempt).
#pragma once

#include <cstdint>

#include "core/base/philox.h"

namespace mixtape {

struct StepState {
  uint64_t attempts = 0;
  uint64_t updates = 0;
  uint64_t seed = 0;
  uint64_t micro_batch = 0;   // the current one's index in the global step
  double loss = 0;            // of the step's micro-batches so far: their shares of the global mean
  PhiloxKey philox;           // of the current micro-batch: philox_key(seed, attempts, micro_batch)
  float loss_scale = 1;       // fp16's dynamic scale; 1 in every other mode
  float inverse_targets = 1;  // 1 / number of targets in the global step
  float learning_rate = 0;
  float grad_norm = 0;    // of the unscaled gradients, before clipping
  float grad_factor = 1;  // what the optimizer multiplies gradients by: clip factor / loss_scale
  int32_t finite = 1;     // 0 if any gradient was infinite or NaN: the optimizer then changes nothing
  // Of gradients that are measured and applied in parts (GradientNorm): squares of the step's parts so far, 0 before
  // the first, and the norm of the step before.
  double grad_squares = 0;
  float last_norm = 0;

  // Of fp16's scale (finish_attempt).
  int64_t growth_tracker = 0, hysteresis_left = 0, overflows = 0;
  int32_t scale_adapts = 0;  // the last attempt's overflow was answered: borne, or by a lower scale
};

// How fp16's scale follows overflows: PyTorch's GradScaler by default. With hysteresis the first overflows are borne;
// the count of them starts again when the scale grows (Megatron), or at each finite step (Apex).
struct LossScaleRule {
  bool active = false;  // in the other modes the scale stays
  int64_t growth_interval = 2000, hysteresis = 1;
  bool restarts_at_finite = false;
  double growth = 2, backoff = 0.5;
  float least = 0;
};

// After a micro-batch whose share of the loss is `mean`.
constexpr void next_micro_batch(StepState& state, float mean) {
  state.loss += double(mean);
  ++state.micro_batch;
  state.philox = philox_key(state.seed, state.attempts, state.micro_batch);
}

// An overflow at the least scale, or below 1, where no scale helps, is not answered.
constexpr void update_loss_scale(StepState& state, const LossScaleRule& rule) {
  state.scale_adapts = 0;
  if (!state.finite) {
    ++state.overflows;
    state.growth_tracker = 0;
    state.scale_adapts = 1;
    if (--state.hysteresis_left > 0) return;
    // Without hysteresis the count starts again at each overflow; with it, as the rule says.
    if (rule.hysteresis == 1) state.hysteresis_left = 1;
    const float before = state.loss_scale, lower = float(before * rule.backoff);
    state.loss_scale = lower < rule.least ? rule.least : lower;
    state.scale_adapts = state.loss_scale < before && state.loss_scale >= 1;
    return;
  }
  if (rule.restarts_at_finite) state.hysteresis_left = rule.hysteresis;
  if (++state.growth_tracker < rule.growth_interval) return;
  state.growth_tracker = 0;
  state.hysteresis_left = rule.hysteresis;
  // Growth that would overflow is not applied, as in PyTorch.
  const float grown = float(state.loss_scale * rule.growth);
  if (grown - grown == 0) state.loss_scale = grown;
}

// After the update: counts the attempt, and the update unless it was skipped.
constexpr void finish_attempt(StepState& state, const LossScaleRule& rule) {
  ++state.attempts;
  if (state.finite) ++state.updates;
  if (rule.active) update_loss_scale(state, rule);
}

}  // namespace mixtape
