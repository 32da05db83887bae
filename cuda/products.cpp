#include "cuda/products.h"

namespace mixtape::cuda {
namespace {

void check_codes(const Product& p) {
  const auto is_code = [](DType type) { return type == DType::e4m3 || type == DType::e5m2; };
  if (!is_code(p.a.dtype()) || !is_code(p.b.dtype()) || (p.a.dtype() == DType::e5m2 && p.b.dtype() == DType::e5m2) ||
      size_of(p.c.dtype()) == 1)
    throw Error("product: {} times {} into {}", p.a.dtype(), p.b.dtype(), p.c.dtype());
  if (p.transpose_a || !p.transpose_b || p.m() % 16 || p.n() % 16 || p.k() % 16 || p.has_extras())
    throw Error("product: codes of {} and {}, expected rows of both and multiples of 16", p.a.shape(), p.b.shape());
  if (!p.b_scale || (p.bias && (p.accumulate || p.bias.count() != p.n() || p.bias.dtype() != p.c.dtype())))
    throw Error("product: codes into {} with a bias of {}", p.c.shape(), p.bias.shape());
}

}  // namespace

void check(const Product& p) {
  const int64_t b_rows = p.transpose_b ? p.b.cols() : p.b.rows(), b_cols = p.transpose_b ? p.b.rows() : p.b.cols();
  const int64_t a_rows = p.transpose_a ? p.a.cols() : p.a.rows();
  if (a_rows != p.m() || b_rows != p.k() || b_cols != p.n())
    throw Error("product: {} and {}{} do not give {}", p.a.shape(), p.b.shape(), p.transpose_b ? " transposed" : "",
                p.c.shape());
  if (p.of_codes()) return check_codes(p);
  if (p.a.dtype() != p.b.dtype() || (p.c.dtype() != p.a.dtype() && p.c.dtype() != DType::f32))
    throw Error("product: {} times {} into {}", p.a.dtype(), p.b.dtype(), p.c.dtype());
  if (p.bias && (p.accumulate || p.bias.count() != p.n() || p.bias.dtype() != p.a.dtype()))
    throw Error("product: a bias of {}, expected {} of {} and nothing to add to", p.bias.shape(), p.n(), p.a.dtype());
  if (!extras_fit(p)) throw Error("product: {} with extras that no epilogue has", p.c.shape());
}

// The library has the tanh form of gelu and relu. What gelu keeps are the sums, in rows of a multiple of 8 elements; of
// relu it would keep a bit, from which nothing can be made again. Sums of op(a) are instead of all others.
bool extras_fit(const Product& p) {
  const bool active = p.activation != Unary::none;
  if (active && p.activation != Unary::gelu_tanh && p.activation != Unary::relu) return false;
  if ((active || p.pre) && p.accumulate) return false;
  if (p.pre) {
    if (p.activation != Unary::gelu_tanh || p.pre.dtype() != p.c.dtype() || p.pre.shape() != p.c.shape()) return false;
    if (p.pre.row_stride() % 8 || reinterpret_cast<uintptr_t>(p.pre.raw()) % 16) return false;
  }
  return !p.a_sums ||
         (!active && !p.bias && p.a_sums.dtype() == p.c.dtype() && p.a_sums.count() == p.m() && p.a_sums.contiguous());
}

}  // namespace mixtape::cuda
