// T5's relative position bias, spread out by distance.
//
// A head's bias depends on the distance i' - j alone and is constant from some `reach` on. So each call spreads the
// table of buckets to one value a distance: the queries of a panel, which lie side by side, read their biases of a key
// as whole vectors, and backward adds their dS to sums by distance in the same way. Nothing grows with the square of
// the length.
#pragma once

#include "core/cpu/attention/problem.h"

namespace mixtape::flash {

// The memory behind a RelativeBias; absent tensors where there is no such bias.
struct RelativeWorkspace {
  Tensor values, buckets;
  int64_t reach = 0;

  // `rows`: the most rows that queries and keys have, which no distance exceeds.
  RelativeWorkspace(const Backend& backend, const AttentionSpec& spec, int64_t rows);
  RelativeBias spread(const Tensor& table, const AttentionSpec& spec) const;
  int64_t width() const { return values ? values.cols() : 0; }
};

// The sums of dS of each tile of queries, [tiles, relative_buckets * n_heads], for as many tiles as the rows have and
// some more, since a segment's last tile may be short. Always enough for one segment.
Tensor relative_sums(const Backend& backend, const AttentionSpec& spec, int64_t rows_q, int64_t segments);

}  // namespace mixtape::flash
