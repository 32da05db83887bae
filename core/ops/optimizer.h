// The update of weights, over flat buffers: not on the tape.
//
// Buffers are cut into chunks of 64 Ki elements; sums over them are taken per chunk, then over chunks in a fixed binary
// tree, so that the bits depend on neither threads nor sharding.
#pragma once

#include "core/backend.h"

namespace mixtape {

inline constexpr int64_t chunk_elements = 65536;

// A range of the flat buffer with one treatment; ranges never straddle a chunk.
struct UpdateRange {
  int64_t offset = 0, count = 0;
  float lr_factor = 1, weight_decay = 0;
};

// Writes state->grad_norm (of gradients / loss_scale), state->finite and state->grad_factor =
// min(1, clip / (norm + 1e-6)) / loss_scale (clip <= 0: 1 / loss_scale). gradients: float32, flat; `ranges` tells what
// counts (the padding between parameters does not).
struct GradientNorm {
  StepState* state;
  Tensor gradients;
  const UpdateRange* ranges;
  int64_t n_ranges;
  float clip = 0;
};

// AdamW, Loshchilov & Hutter, arXiv 1711.05101, with bias correction for step t = state->updates + 1:
//   g = gradient * grad_factor;  m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2
//   w = w (1 - lr * weight_decay);  w -= lr * (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps),   lr = learning_rate *
//   lr_factor
// Does nothing when state->finite is 0. weights: fp32, or fp16/bf16 with a float32 master of which they are the rounded
// copy. gradients, m, v, master: float32, flat, all of one length.
struct AdamW {
  StepState* state;
  Tensor weights, master, gradients, m, v;
  const UpdateRange* ranges;
  int64_t n_ranges;
  float beta1, beta2, eps;
};

// Checked calls.
void gradient_norm(Backend& backend, const GradientNorm& arguments);
void adamw(Backend& backend, const AdamW& arguments);

class OptimizerKernels {
 public:
  virtual ~OptimizerKernels() = default;
  virtual void gradient_norm(const GradientNorm&) = 0;
  virtual void adamw(const AdamW&) = 0;
};

}  // namespace mixtape
