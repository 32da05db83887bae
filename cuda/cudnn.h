// Attention by cuDNN, for what it has in common with the kernels of attention/: attention.implementation: cudnn.
//
// It thinks in sequences of one length. So it takes what is a row for each document, all rows of one capacity: a batch
// of causal or bidirectional self-attention, or of bidirectional cross-attention, that backward follows. Rows may end
// early. Whatever else (biases, windows, dropout, decoding) stays with Mixtape's kernels. That each row is one document
// is the configuration's promise (train/config/check.cpp), and row_lengths.h ends the run where it is broken.
//
// cudnn.cpp needs the headers of cudnn-frontend; absent_cudnn.cpp stands in where there are none.
#pragma once

#include <memory>

#include "core/ops/attention.h"
#include "cuda/runtime.h"

namespace mixtape {
class CudaBackend;
}

namespace mixtape::cuda {

// Throws ConfigError where this build is without.
class Cudnn {
 public:
  explicit Cudnn(CudaBackend& backend);
  ~Cudnn();

  void attention(const Attention& a);
  void attention_backward(const AttentionBackward& a);

  struct State;

 private:
  std::unique_ptr<State> state_;
};

// Of a batch as cuDNN sees it.
struct RowBatch {
  int64_t sequences, queries, keys;  // rows of a sequence
};
// What it takes follows from shapes, types and settings alone, and is the same forward and backward. lse is laid out by
// sequences then, and only read by cuDNN again.
bool cudnn_takes(const AttentionSpec& spec, const Tensor& q, const Tensor& k, const Tensor& lse);
template <class A>  // Attention or AttentionBackward
bool cudnn_takes(const A& a) {
  return !a.slopes && !a.relative && cudnn_takes(a.spec, a.q, a.k, a.lse);
}
RowBatch row_batch(const AttentionSpec& spec, const Tensor& q, const Tensor& k);

}  // namespace mixtape::cuda
