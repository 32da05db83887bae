// How sums over a flat buffer are cut, on every device.
#pragma once

#include <algorithm>
#include <vector>

#include "core/ops/optimizer.h"

namespace mixtape {

// The tensors in ranges of at most a chunk, one after another; each says whose it is.
inline std::vector<UpdateRange> pieces_of(const UpdateTensor* tensors, int64_t n_tensors) {
  std::vector<UpdateRange> pieces;
  for (int64_t i = 0; i < n_tensors; ++i)
    for (int64_t at = 0; at < tensors[i].count(); at += chunk_elements)
      pieces.push_back({.offset = tensors[i].offset + at,
                        .count = std::min(chunk_elements, tensors[i].count() - at),
                        .tensor = int32_t(i)});
  return pieces;
}

// How many chunks ranges go through, which are in order.
inline int64_t chunks_of(const UpdateRange* ranges, int64_t n_ranges) {
  return n_ranges > 0 ? ranges[n_ranges - 1].offset / chunk_elements + 1 : 0;
}

}  // namespace mixtape
