// Muon, Jordan et al. (kellerjordan.github.io/posts/muon, 2024): a matrix moves by the orthogonal matrix that is
// nearest to the momentum of its gradients, so that all of its directions learn alike. Newton-Schulz iterations find it
// by matrix products alone, roughly: the singular values of the result lie between 0.7 and 1.2.
//
//   m = momentum m + g;  u = g + momentum m with nesterov, else m;  X = u / |u|
//   iterations times, of the shorter side:  A = X X^T;  X = a X + (b A + c A^2) X;  a, b, c = 3.4445, -4.7750, 2.0315
//   w = w (1 - lr weight_decay) - lr 0.2 sqrt(max(R, C)) X
//
// The factor is that of Liu et al., arXiv 2502.16982: steps are as large as AdamW's, so that both share a learning rate
// and a decay. Of hidden matrices alone; embeddings, heads and vectors are AdamW's.
#pragma once

#include "core/parameters.h"
#include "train/config/optimizer.h"

namespace mixtape {

// X of the formulas from u / |u|, in place of x. float32 [R, C], any R and C. Scratch: as large as x, and twice the
// square of its shorter side.
void orthogonalise(Backend& backend, const Tensor& x, int64_t iterations);

// The update of one matrix: buffers are its elements, as for AdamW; m is fp32 or bf16.
struct MuonUpdate {
  StepState* state;
  Tensor weights, master, gradients;
  Moment m;
  UpdateTensor tensor;
  uint64_t seed = 0;  // of stochastic rounding
};
void muon(Backend& backend, const MuonConfig& config, const MuonUpdate& update);

}  // namespace mixtape
