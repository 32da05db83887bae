// The update of weights, over flat buffers, and the step's own counters: not on the tape. docs/optimizers.md has the
// formulas in full.
//
// Buffers are cut into chunks of 64 Ki elements; sums over them are taken per chunk, then over chunks in a fixed binary
// tree, so that the bits depend on neither threads nor sharding.
#pragma once

#include "core/backend.h"
#include "core/ops/optimizer_state.h"

namespace mixtape {

inline constexpr int64_t chunk_elements = 65536;

// A range of the flat buffer with one treatment; ranges never straddle a chunk.
struct UpdateRange {
  int64_t offset = 0, count = 0;
  float lr_factor = 1, weight_decay = 0;
  int32_t tensor = 0;  // whose scale it has (ParameterScales), where there are scales
  // The parameter that it is of, and the first of its elements there: what stochastic rounding follows.
  uint32_t parameter = 0;
  int64_t first = 0;
  int64_t v_shift = 0;  // its second moments are so many elements before, where others have none
};

// A tensor of the flat buffer with one treatment, as a matrix of contiguous rows; a vector is one row.
struct UpdateTensor {
  int64_t offset = 0, rows = 1, cols = 0;
  float lr_factor = 1, weight_decay = 0;
  // Where Adafactor's second moments begin in `v`: cols of columns, and rows of rows, which one row alone has not.
  int64_t column_moments = 0, row_moments = 0;
  uint32_t parameter = 0;  // as of a range
  int64_t first = 0;

  constexpr int64_t count() const { return rows * cols; }  // on GPUs, too
};

// Writes state->grad_norm (of gradients / loss_scale), state->finite and state->grad_factor =
// min(1, clip / (norm + 1e-6)) / loss_scale (clip <= 0: 1 / loss_scale). gradients: fp32 or bf16, flat; `ranges`
// tells what counts (the padding between parameters does not).
//
// With `adds` they are one part of the step's, applied before the next is known: the norm and finiteness are of all
// parts so far, and what is clipped by is the larger of that norm and of the step before's (state->last_norm). So no
// part is applied with a norm of more than `clip`, whatever comes.
//
// In place of gradients `squares` of all ranges, float64 (as i64) [n_ranges], where ranks have them in parts.
struct GradientNorm {
  StepState* state;
  Tensor gradients;
  const UpdateRange* ranges;
  int64_t n_ranges;
  float clip = 0;
  bool adds = false;
  Tensor squares = {};
};

// squares[i] = the sum of squares over range i. squares: float64 (as i64) [n_ranges]; gradients: as GradientNorm's.
struct RangeSquares {
  Tensor squares, gradients;
  const UpdateRange* ranges;
  int64_t n_ranges;
};

// scales[i] = max(least, sqrt(mean(w^2))) over tensor i: the size of a parameter, to which its steps are then relative.
// Shazeer & Stern, arXiv 1804.04235, section 8. weights: float32, flat (the master where there is one); scales: float32
// [n_tensors].
struct ParameterScales {
  Tensor scales, weights;
  const UpdateTensor* tensors;
  int64_t n_tensors;
  float least;
};

// What the rules that treat each element alone have in common. All buffers are flat and of one length. Nothing happens
// when state->finite is 0.
//   weights    fp32; or fp16 or bf16
//   master     beside fp16 or bf16: float32, of which weights are the rounded copy (rounded_weight); beside bf16 also
//              uint16, the remainders of weights; or absent: weights are then rounded stochastically
//   gradients  fp32 or bf16
//   m, v       in any MomentFormat; of 8 bits, ranges begin where blocks do
// Numbers for rounding by chance follow seed, state->attempts, parameter and element (stochastic_rounding.h).

// AdamW, Loshchilov & Hutter, arXiv 1711.05101, with bias correction for step t = state->updates + 1:
//   g = gradient * grad_factor;  m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2
//   w = w (1 - lr * weight_decay);  w -= lr * scale * (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps),
//   lr = learning_rate * lr_factor;  scale: 1, or where there are scales that of the range's tensor
// Without bias correction (BERT's optimizer) both divisors of (1 - b^t) are 1. Without decoupled decay it is Adam,
// Kingma & Ba, arXiv 1412.6980, with a penalty on squared weights: the decay is a part of the gradient, g = gradient *
// grad_factor + weight_decay w, and goes through both moments.
struct AdamW {
  StepState* state;
  Tensor weights, master, gradients;
  Moment m, v;
  const UpdateRange* ranges;
  int64_t n_ranges;
  float beta1, beta2, eps;
  bool bias_correction = true;
  Tensor scales;
  uint64_t seed = 0;  // of stochastic rounding
  bool decoupled_decay = true;
};

// SGD with momentum as in PyTorch (Sutskever et al., ICML 2013, with the learning rate outside of the average):
//   g = gradient * grad_factor + weight_decay w;  m = momentum m + g
//   w -= lr m, or lr (g + momentum m) with nesterov;  lr = learning_rate * lr_factor
// Without m, which a momentum of 0 does not need: w -= lr g.
struct Sgd {
  StepState* state;
  Tensor weights, master, gradients;
  Moment m;
  const UpdateRange* ranges;
  int64_t n_ranges;
  float momentum;
  bool nesterov = false;
  uint64_t seed = 0;
};

// Lion, Chen et al., arXiv 2302.06675:
//   g = gradient * grad_factor;  u = sign(b1 m + (1 - b1) g);  w = w (1 - lr weight_decay) - lr u
//   m = b2 m + (1 - b2) g;  lr = learning_rate * lr_factor;  sign(0) = 0
struct Lion {
  StepState* state;
  Tensor weights, master, gradients;
  Moment m;
  const UpdateRange* ranges;
  int64_t n_ranges;
  float beta1, beta2;
  uint64_t seed = 0;
};

// The passes of Muon over one tensor, between which train/optim/muon.h multiplies matrices. Buffers are the tensor's
// elements, of which ranges count from the first. Nothing happens when state->finite is 0.
//   m = momentum m + g;  direction = g + momentum m with nesterov, else m;  g = gradient * grad_factor
// direction: float32. m: fp32 or bf16.
struct MuonDirection {
  StepState* state;
  Tensor direction, gradients;
  Moment m;
  const UpdateRange* ranges;
  int64_t n_ranges;
  float momentum;
  bool nesterov = true;
  uint64_t seed = 0;
};
// x = x / (root_mean_square * sqrt(count)): of Frobenius norm 1. float32; root_mean_square [1], as parameter_scales
// gives it.
struct DivideByNorm {
  Tensor x, root_mean_square;
};
// w = w (1 - lr weight_decay) - lr factor direction;  lr = learning_rate * lr_factor. weights, master: as above.
struct Follow {
  StepState* state;
  Tensor weights, master, direction;
  const UpdateRange* ranges;
  int64_t n_ranges;
  float factor;
  uint64_t seed = 0;
};

// Adafactor, Shazeer & Stern, arXiv 1804.04235, in the form of fairseq and transformers. Of an R x C matrix it keeps
// R + C second moments; a vector's are those of a matrix with one row, so none is lost. t = state->updates + 1:
//   g = gradient * grad_factor;  b2 = 1 - t^-decay_rate;  s = g^2 + eps
//   row[r] = b2 row[r] + (1 - b2) mean_c s[r, c];  col[c] = b2 col[c] + (1 - b2) mean_r s[r, c]
//   u[r, c] = g[r, c] / sqrt(row[r] col[c] / mean(row));  u /= max(1, sqrt(mean(u^2)) / clip_threshold)
//   rate = learning_rate * lr_factor * scale;  m = b1 m + (1 - b1) rate u, in place of rate u where there is an m
//   w = w (1 - rate * weight_decay) - rate u
// Does nothing when state->finite is 0. weights: fp32, or fp16 or bf16 with a float32 master. gradients, m: float32; m
// may be absent. v: float32, as the tensors say. scales: absent, or one for each tensor.
struct Adafactor {
  StepState* state;
  Tensor weights, master, gradients, m, v;
  const UpdateTensor* tensors;
  int64_t n_tensors;
  float beta1 = 0, decay_rate = 0.8f, eps = 1e-30f, clip_threshold = 1;
  Tensor scales;
};

// Between micro-batches: next_micro_batch(*state, mean). mean: float32 [1].
struct FinishMicroBatch {
  StepState* state;
  Tensor mean;
};

// After the update: finish_attempt(*state, rule).
struct FinishAttempt {
  StepState* state;
  LossScaleRule rule;
};

// Checked calls.
void gradient_norm(Backend& backend, const GradientNorm& arguments);
void range_squares(Backend& backend, const RangeSquares& arguments);
void parameter_scales(Backend& backend, const ParameterScales& arguments);
void adamw(Backend& backend, const AdamW& arguments);
void sgd(Backend& backend, const Sgd& arguments);
void lion(Backend& backend, const Lion& arguments);
void muon_direction(Backend& backend, const MuonDirection& arguments);
void divide_by_norm(Backend& backend, const DivideByNorm& arguments);
void follow(Backend& backend, const Follow& arguments);
void adafactor(Backend& backend, const Adafactor& arguments);
void finish_micro_batch(Backend& backend, const FinishMicroBatch& arguments);
void finish_attempt(Backend& backend, const FinishAttempt& arguments);

class OptimizerKernels {
 public:
  virtual ~OptimizerKernels() = default;
  virtual void gradient_norm(const GradientNorm&) = 0;
  virtual void range_squares(const RangeSquares&) = 0;
  virtual void parameter_scales(const ParameterScales&) = 0;
  virtual void adamw(const AdamW&) = 0;
  virtual void sgd(const Sgd&) = 0;
  virtual void lion(const Lion&) = 0;
  virtual void muon_direction(const MuonDirection&) = 0;
  virtual void divide_by_norm(const DivideByNorm&) = 0;
  virtual void follow(const Follow&) = 0;
  virtual void adafactor(const Adafactor&) = 0;
  virtual void finish_micro_batch(const FinishMicroBatch&) = 0;
  virtual void finish_attempt(const FinishAttempt&) = 0;
};

}  // namespace mixtape
