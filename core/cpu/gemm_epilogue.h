// What is done to matrices before and after products: bias and activation on a finished tile, their derivatives, and
// the way from narrow types to fp32 and back. Every function is a sequential pass over the block it is given.
#pragma once

#include "core/cpu/rows.h"
#include "core/ops/activation.h"

namespace mixtape {

// A block of a matrix of any type.
struct Block {
  std::byte* data = nullptr;
  int64_t stride = 0;  // elements from row to row
  DType type = DType::f32;

  Block() = default;
  explicit Block(const Tensor& t) : data(t.raw()), stride(t.row_stride()), type(t.dtype()) {}
  explicit operator bool() const { return data != nullptr; }
  Block at(int64_t row, int64_t col) const {
    Block b = *this;
    if (data) b.data += (row * stride + col) * size_of(type);
    return b;
  }
  template <class T>
  T* row(int64_t r) const {
    return reinterpret_cast<T*>(data) + r * stride;
  }
};

// u = sums + bias, rounded to y's type; pre = u where asked for; y = act(u). sums may be y itself. The activation sees
// the rounded u, so that y can be remade from pre to the bit.
struct BiasActivation {
  Block y, pre, sums;
  const std::byte* bias = nullptr;  // of y's type, at the block's first column
  Unary activation = Unary::none;
  int64_t rows = 0, cols = 0;
};
void bias_activation(const BiasActivation& a);

// du = dy * act'(pre), and column_sums[c] = sum_r du[r, c] before rounding. du may be dy itself, and absent; so may
// column_sums. pre is absent where there is no activation.
struct ActivationSlope {
  Block du, dy, pre;
  float* column_sums = nullptr;
  Unary activation = Unary::none;
  int64_t rows = 0, cols = 0;
};
void activation_slope(const ActivationSlope& a);

// to = from, or to += from; between fp32 and any type.
void copy_block(const Block& to, const Block& from, int64_t rows, int64_t cols, bool accumulate = false);

}  // namespace mixtape
