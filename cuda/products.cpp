#include "cuda/products.h"

namespace mixtape::cuda {

void check(const Product& p) {
  const int64_t b_rows = p.transpose_b ? p.b.cols() : p.b.rows(), b_cols = p.transpose_b ? p.b.rows() : p.b.cols();
  const int64_t a_rows = p.transpose_a ? p.a.cols() : p.a.rows();
  if (a_rows != p.m() || b_rows != p.k() || b_cols != p.n())
    throw Error("product: {} and {}{} do not give {}", p.a.shape(), p.b.shape(), p.transpose_b ? " transposed" : "",
                p.c.shape());
  if (p.a.dtype() != p.b.dtype() || (p.c.dtype() != p.a.dtype() && p.c.dtype() != DType::f32))
    throw Error("product: {} times {} into {}", p.a.dtype(), p.b.dtype(), p.c.dtype());
  if (p.bias && (p.accumulate || p.bias.count() != p.n() || p.bias.dtype() != p.a.dtype()))
    throw Error("product: a bias of {}, expected {} of {} and nothing to add to", p.bias.shape(), p.n(), p.a.dtype());
}

}  // namespace mixtape::cuda
