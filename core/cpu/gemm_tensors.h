// Products of tensors: operands widened where the CPU cannot multiply their type, results rounded to where they go.
#pragma once

#include "core/cpu/gemm.h"
#include "core/cpu/gemm_epilogue.h"

namespace mixtape {

inline bool multiplied_as_is(DType type) { return type == DType::f32 || (type == DType::bf16 && native_bf16()); }

// How many weight rows are widened at a time: all, or as many as make copies and products of about 16 MiB.
inline int64_t panel_rows(int64_t out, int64_t in, int64_t rows) {
  const int64_t fit = (int64_t(4) << 20) / std::max<int64_t>(in + rows, 1) / 64 * 64;
  return std::min(out, std::max<int64_t>(fit, 256));
}

// C = A B or C += A B; A and B transposed where said so.
Gemm product_of(const Tensor& a, bool transpose_a, const Tensor& b, bool transpose_b, const Tensor& c,
                bool accumulate = false);

// t as fp32 in the first rows of `memory`; t itself where memory is absent.
Tensor widened(const Tensor& t, const Tensor& memory);

// Rounds fp32 rows to a gradient, or adds them.
void copy_rows(const Tensor& from, const Grad& to);

// Adds the rows of `sums` (fp32, overwritten) in order, and delivers the result.
void add_column_sums(const Tensor& sums, const Grad& to);

}  // namespace mixtape
