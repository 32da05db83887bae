// Matrix products on the device, by a library: cuBLASLt (cublaslt.cpp), or loops on the host (emulator/products.cpp).
#pragma once

#include <memory>

#include "core/ops/activation.h"
#include "core/tensor.h"
#include "cuda/runtime.h"

namespace mixtape::cuda {

// c = op(a) op(b) + bias, or c += op(a) op(b). Row-major: op(a) is [m, k], op(b) [k, n], c [m, n]; op transposes what
// is stored. a, b and the bias [n] have one type; c has it too, or is float32. Sums are float32, rounded once.
//
// a and b may be codes of 8-bit floats, at most one of them e5m2: c = a_scale[0] b_scale[0] a b^T + bias. b is
// transposed then, a is not, and all dimensions are multiples of 16; bias has c's type.
struct Product {
  Tensor c, a, b, bias;     // bias may be absent, and is where c is added to
  Tensor a_scale, b_scale;  // of codes, float32 [1] on the device
  bool transpose_a = false, transpose_b = false, accumulate = false;

  // What the product can do beside while its sums are in registers; `Products::takes` says whether.
  Unary activation = Unary::none;  // c = activation(op(a) op(b) + bias)
  Tensor pre;                      // like c: op(a) op(b) + bias
  Tensor a_sums;                   // [m], of c's type: sums of op(a) over k

  bool of_codes() const { return bool(a_scale); }
  bool has_extras() const { return activation != Unary::none || pre || a_sums; }
  int64_t m() const { return c.rows(); }
  int64_t n() const { return c.cols(); }
  int64_t k() const { return transpose_a ? a.rows() : a.cols(); }
};

struct ProductOptions {
  bool tf32 = false;  // float32 by tensor cores: operands with 10 bits of mantissa, sums in float32
};

class Products {
 public:
  explicit Products(Runtime& runtime, ProductOptions options = {});
  ~Products();
  // The bytes of scratch memory that `multiply` takes.
  int64_t workspace_bytes() const;
  // Whether the device multiplies codes of 8-bit floats.
  bool multiplies_codes();
  // Whether one call does the product with its extras; without any it always does.
  bool takes(const Product& product);
  void multiply(const Product& product, const Tensor& workspace);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Throws Error where the shapes of a product do not fit each other.
void check(const Product& product);
// What the library's epilogues demand of a product's extras, whatever the device.
bool extras_fit(const Product& product);

}  // namespace mixtape::cuda
