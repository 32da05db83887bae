// What changes from step to step, in device memory.
//
// Kernels read it through a pointer and never take these numbers as launch arguments, so a captured CUDA graph stays
// valid. `attempts` drives data and randomness, `updates` drives the learning rate and bias correction: a skipped step
// advances the first only.
#pragma once

#include <cstdint>

#include "core/base/philox.h"

namespace mixtape {

struct StepState {
  uint64_t attempts = 0;
  uint64_t updates = 0;
  PhiloxKey philox;           // of the current micro-batch: philox_key(seed, attempts, micro_batch)
  float loss_scale = 1;       // fp16's dynamic scale; 1 in every other mode
  float inverse_targets = 1;  // 1 / number of targets in the global step
  float learning_rate = 0;
  float grad_norm = 0;    // of the unscaled gradients, before clipping
  float grad_factor = 1;  // what the optimizer multiplies gradients by: clip factor / loss_scale
  int32_t finite = 1;     // 0 if any gradient was infinite or NaN: the optimizer then changes nothing
};

}  // namespace mixtape
