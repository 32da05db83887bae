// y = x W^T for a few rows of x (decoding), bound by reading W once.
#pragma once

#include "core/cpu/gemm_epilogue.h"

namespace mixtape {

inline constexpr int64_t most_gemm_rows = 16;

// sums[r, o - begin] = sum_i x[r, i] weight[o, i] for o in [begin, end), on the calling thread; x and weight of one
// type, sums fp32. At most most_gemm_rows rows. The order of each sum depends on `cols` alone.
struct GemmRows {
  Block sums, x, weight;
  int64_t rows = 0, cols = 0, begin = 0, end = 0;
};
void gemm_rows(const GemmRows& a);

}  // namespace mixtape
