// Matrix products for the emulated device: plain loops over copies in float, in one thread, so that the bits depend on
// nothing. Fast enough for the sizes of tests.
#include "cuda/products.h"

#include <vector>

#include "core/base/dispatch.h"
#include "cuda/emulator/runtime.h"

namespace mixtape::cuda {
namespace {

// [rows, cols], of the tensor or of its transpose.
std::vector<float> widened(const Tensor& t, bool transpose) {
  const int64_t rows = t.rows(), cols = t.cols();
  std::vector<float> x(size_t(rows * cols));
  dispatch<float, fp16, bf16>(t.dtype(), "product", [&]<class T>() {
    const T* data = t.data<T>();
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < cols; ++c)
        x[size_t(transpose ? c * rows + r : r * cols + c)] = float(data[r * t.row_stride() + c]);
  });
  return x;
}

}  // namespace

struct Products::State {
  Runtime& runtime;
};

Products::Products(Runtime& runtime) : state_(new State{runtime}) {}
Products::~Products() = default;
int64_t Products::workspace_bytes() const { return 0; }

namespace {

// The same memory without a share in it: what is queued must not change when the arena gets it back.
Tensor borrowed(const Tensor& t) {
  return t ? Tensor(t.raw(), {t.rows(), t.row_stride()}, t.dtype()).columns(0, t.cols()) : t;
}

void run(const Product& p) {
  const int64_t m = p.m(), n = p.n(), k = p.k();
  const std::vector<float> a = widened(p.a, p.transpose_a), b = widened(p.b, p.transpose_b);
  const std::vector<float> bias = p.bias ? widened(p.bias, false) : std::vector<float>(size_t(n));
  std::vector<float> sums(static_cast<size_t>(n));
  dispatch<float, fp16, bf16>(p.c.dtype(), "product", [&]<class T>() {
    for (int64_t i = 0; i < m; ++i) {
      std::fill(sums.begin(), sums.end(), 0.f);
      for (int64_t l = 0; l < k; ++l)
        for (int64_t j = 0; j < n; ++j) sums[size_t(j)] += a[size_t(i * k + l)] * b[size_t(l * n + j)];
      T* c = p.c.data<T>() + i * p.c.row_stride();
      for (int64_t j = 0; j < n; ++j) c[j] = T(sums[size_t(j)] + (p.accumulate ? float(c[j]) : bias[size_t(j)]));
    }
  });
}

}  // namespace

void Products::multiply(const Product& p, const Tensor&) {
  check(p);
  Product queued = p;
  for (Tensor* t : {&queued.c, &queued.a, &queued.b, &queued.bias}) *t = borrowed(*t);
  emulator::queue(state_->runtime, [queued] { run(queued); });
}

}  // namespace mixtape::cuda
