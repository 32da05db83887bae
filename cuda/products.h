// Matrix products on the device, by a library: cuBLASLt (cublaslt.cpp), or loops on the host (emulator/products.cpp).
#pragma once

#include <memory>

#include "core/tensor.h"
#include "cuda/runtime.h"

namespace mixtape::cuda {

// c = op(a) op(b) + bias, or c += op(a) op(b). Row-major: op(a) is [m, k], op(b) [k, n], c [m, n]; op transposes what
// is stored. a, b and the bias [n] have one type; c has it too, or is float32. Sums are float32, rounded once.
struct Product {
  Tensor c, a, b, bias;  // bias may be absent, and is where c is added to
  bool transpose_a = false, transpose_b = false, accumulate = false;

  int64_t m() const { return c.rows(); }
  int64_t n() const { return c.cols(); }
  int64_t k() const { return transpose_a ? a.rows() : a.cols(); }
};

class Products {
 public:
  explicit Products(Runtime& runtime);
  ~Products();
  // The bytes of scratch memory that `multiply` takes.
  int64_t workspace_bytes() const;
  void multiply(const Product& product, const Tensor& workspace);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Throws Error where the shapes of a product do not fit each other.
void check(const Product& product);

}  // namespace mixtape::cuda
