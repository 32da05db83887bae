// The lengths of a batch with one segment a row, for libraries that know no segments.
#pragma once

#include "cuda/backend.h"

namespace mixtape::cuda {

// queries, keys: int32 [sequences]. Sequence s has the rows from s most_queries on, and its keys those from s most_keys
// on; how many of them are real is the length of the segment that begins there, and 0 where none does. A segment that
// begins elsewhere, or a second one in a row, ends the kernel.
struct RowLengths {
  Tensor queries, keys;
  int64_t most_queries, most_keys;
};
void row_lengths(CudaBackend& backend, const RowLengths& to, const Tensor& segments, const Tensor& n_segments);
// Zeroes the rows of x, fp16 or bf16, that are behind the end of their sequence of at most `most` rows.
void clear_row_ends(CudaBackend& backend, const Tensor& x, const Tensor& lengths, int64_t most);

}  // namespace mixtape::cuda
