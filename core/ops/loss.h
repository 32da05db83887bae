// Cross-entropy from hidden states: the head's matmul, softmax and loss, a chunk of rows at a time, so that the whole
// matrix of logits never exists.
//
//   z = logit_scale * (hidden W^T + bias);  row_loss = log(sum_v exp(z_v)) - z_target;  loss = sum(row_loss) *
//   inverse_targets
//
// Label smoothing as in PyTorch and Hugging Face (Szegedy et al., arXiv 1512.00567): the target's distribution is
// (1 - s) one-hot + s / V over the whole vocabulary, the target included, so that row_loss = log(sum_v exp(z_v)) -
// (1 - s) z_target - s mean_v(z_v). Its least value is not 0 but the entropy of that distribution; `nll` is the loss
// without smoothing, which perplexity is made of.
//
// Only rows with a target (>= 0) are computed; rows with target -1 get row_loss 0 and gradient 0. When gradients are
// on, forward also writes dhidden and the head's gradient, scaled by loss_scale * inverse_targets from the StepState:
// the logits are at hand then and would have to be made again in backward.
//
// Ranks may share out the vocabulary: each has some rows of W and bias, makes the logits of those tokens, and tells the
// others a few numbers of each row (largest logit, sums, the target's logit), so that all get the same losses. dhidden
// is then the rank's part of a sum.
#pragma once

#include "core/backend.h"
#include "core/exchange.h"
#include "core/tape.h"

namespace mixtape {

struct LossSpec {
  float logit_scale = 1;
  float label_smoothing = 0;  // s, in [0, 1)
  int64_t chunk_rows = 0;     // 0: chosen by the back end
  bool predict = false;       // make Loss::predictions
  // Where ranks share out the vocabulary, in their order: the token of the first row here, how many tokens there are in
  // all, and the ranks. Null: all are here.
  int64_t first_token = 0, vocabulary = 0;
  Exchange* ranks = nullptr;
};

struct Loss {
  Tensor mean;      // float32 [1]: this micro-batch's share of the global mean
  Tensor row_loss;  // float32 [rows]
  Tensor nll;       // float32 [1]: as mean, without label smoothing; equal to mean where there is none
  // int32 [rows]: of rows with a target the largest logit's index, the first among equals; of the others -1.
  Tensor predictions;
};

// hidden: [rows, d]; weight: [V, d]; bias: [V] or absent; targets: int32 [rows].
Loss cross_entropy(Tape& tape, const Tensor& hidden, const Tensor& weight, const Tensor& bias, const Tensor& targets,
                   const LossSpec& spec);

// What a device provides. The gradients are absent (Write::none) where none are wanted, and so may nll and predictions
// be.
struct CrossEntropy {
  Tensor mean, row_loss, nll, predictions;
  Grad dhidden, dweight, dbias;
  Tensor hidden, weight, bias, targets;
  LossSpec spec;
  const StepState* state = nullptr;
};

class LossKernels {
 public:
  virtual ~LossKernels() = default;
  virtual void cross_entropy(const CrossEntropy&) = 0;
};

}  // namespace mixtape
