// Tensor parallelism: several ranks share out each layer of one model (Shoeybi et al., arXiv 1909.08053), and in
// training the rows of the residual stream between layers (Korthikanti et al., arXiv 2205.05198).
//
// Each rank has some heads, some columns of the feed-forward layer and some rows of the vocabulary. So of two products
// that follow one another the first makes a rank's part from what all have, and the second a rank's summand of what all
// get. What is done to single rows (residual sums, norms, dropout) each does to a run of them:
//
//   x_r = rows r of the stream;   y_r = rows r of  sum over ranks of  act(spread(x_r) A^T) B^T
//
// Which rows or columns a rank has of a tensor is the layout's to know (Cut in core/parameters.h). Outside of training
// each rank has the whole stream. docs/parallelism.md.
#pragma once

#include "core/exchange.h"
#include "core/shards.h"
#include "core/tape.h"

namespace mixtape {

class TensorParallel {
 public:
  // Which part of layers this rank has. Of one rank, or for layouts: what runs layers needs through().
  explicit TensorParallel(Sharding slice = {}) : slice_(slice) {}
  // The same ranks, which exchange through this; it must outlive what runs.
  TensorParallel through(Exchange& exchange) const;

  int size() const { return slice_.ranks; }
  Exchange& exchange() const;
  Sharding slice() const { return slice_; }
  // This rank's of n heads, tokens or rows.
  Run part(int64_t n) const { return part_of(n, slice()); }
  // In training: of a stream of so many rows.
  int64_t first_row(int64_t rows) const { return part(rows).begin; }

  // From the rank's rows of a stream all `rows`, for a product with its part of a layer. In backward the gradients that
  // ranks have are summed, in fp32, and each gets that of its rows.
  Tensor spread(Tape& tape, const Tensor& x, int64_t rows) const;
  // The sum of what each rank has, in fp32, and of that the rank's rows. In backward all rows.
  Tensor sum(Tape& tape, Tensor x) const;
  // As spread, for what all ranks do alike: they have the same gradient, and each takes that of its rows.
  Tensor whole(Tape& tape, const Tensor& x, int64_t rows) const;
  // x itself, which all have; its gradient is the sum of the ranks', in fp32. Absent if x is.
  Tensor add_up(Tape& tape, const Tensor& x) const;
  // Of logits [rows, tokens of this rank] those of all `tokens`; nothing is recorded.
  Tensor gather(Backend& backend, const Tensor& logits, int64_t tokens) const;

 private:
  bool cuts_stream(const Tape& tape) const { return size() > 1 && tape.training(); }
  Sharding slice_;
  Exchange* exchange_ = nullptr;
};

}  // namespace mixtape
