#include "core/cpu/gemm_tensors.h"

namespace mixtape {

Gemm product_of(const Tensor& a, bool transpose_a, const Tensor& b, bool transpose_b, const Tensor& c,
                bool accumulate) {
  return {.transpose_a = transpose_a,
          .transpose_b = transpose_b,
          .m = c.rows(),
          .n = c.cols(),
          .k = transpose_a ? a.rows() : a.cols(),
          .a = a.raw(),
          .lda = a.row_stride(),
          .b = b.raw(),
          .ldb = b.row_stride(),
          .beta = accumulate ? 1.f : 0.f,
          .c = c.data<float>(),
          .ldc = c.row_stride(),
          .type = a.dtype()};
}

Tensor widened(const Tensor& t, const Tensor& memory) {
  if (!memory) return t;
  const Tensor wide = memory.slice(0, t.rows());
  copy_rows(t, {wide, Write::overwrite});
  return wide;
}

void copy_rows(const Tensor& from, const Grad& to) {
  parallel_for(from.rows(), row_grain(from.cols()), [&](int64_t begin, int64_t end) {
    copy_block(Block(to.tensor).at(begin, 0), Block(from).at(begin, 0), end - begin, from.cols(), to.accumulates());
  });
}

void add_column_sums(const Tensor& sums, const Grad& to) {
  const Tensor row = to.tensor.reshaped({1, to.tensor.count()});
  parallel_for(sums.cols(), 4096, [&](int64_t begin, int64_t end) {
    const Block total = Block(sums).at(0, begin);
    for (int64_t r = 1; r < sums.rows(); ++r) copy_block(total, Block(sums).at(r, begin), 1, end - begin, true);
    copy_block(Block(row).at(0, begin), total, 1, end - begin, to.accumulates());
  });
}

}  // namespace mixtape
