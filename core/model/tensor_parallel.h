// Tensor parallelism: several ranks share out each layer of one model (Shoeybi et al., arXiv 1909.08053).
//
// Each rank has some heads, some columns of the feed-forward layer and some rows of the vocabulary, and all of what
// lies between: the residual stream, norms, positions. So of two products that follow one another the first makes a
// rank's part from what all have, and the second makes a rank's summand of what all get:
//
//   y = sum over ranks of  act(spread(x) A_r^T) B_r^T
//
// `spread` is nothing in forward and a sum over ranks in backward, `sum` the reverse. Which rows or columns a rank has
// of a tensor is the layout's to know (Cut in core/parameters.h). docs/parallelism.md.
#pragma once

#include "core/communicator.h"
#include "core/shards.h"
#include "core/tape.h"

namespace mixtape {

class TensorParallel {
 public:
  // Not owned.
  explicit TensorParallel(Communicator& ranks = single_process()) : ranks_(&ranks) {}

  int size() const { return ranks_->size(); }
  Communicator& ranks() const { return *ranks_; }
  Sharding slice() const { return {ranks_->rank(), ranks_->size()}; }
  // This rank's of n heads or tokens.
  Run part(int64_t n) const { return part_of(n, slice()); }

  // x, the same on all ranks, for a product with a rank's part of a layer. The gradients are summed.
  Tensor spread(Tape& tape, const Tensor& x) const;
  // The sum of what each rank has, in fp32.
  Tensor sum(Tape& tape, Tensor x) const;
  // Of logits [rows, tokens of this rank] those of all `tokens`; nothing is recorded.
  Tensor gather(Backend& backend, const Tensor& logits, int64_t tokens) const;

 private:
  Communicator* ranks_;
};

}  // namespace mixtape
