// Matrix products for the emulated device: plain loops over copies in float, in one thread, so that the bits depend on
// nothing. Fast enough for the sizes of tests.
#include "cuda/products.h"

#include <bit>
#include <vector>

#include "core/base/dispatch.h"
#include "cuda/device/activations.h"
#include "cuda/emulator/runtime.h"

namespace mixtape::cuda {
namespace {

// With 10 bits of mantissa, to nearest.
float as_tf32(float x) {
  const auto bits = std::bit_cast<uint32_t>(x);
  return x - x == 0 ? std::bit_cast<float>((bits + 0xfffu + (bits >> 13 & 1)) & ~0x1fffu) : x;
}

// [rows, cols], of the tensor or of its transpose.
std::vector<float> widened(const Tensor& t, bool transpose, bool tf32) {
  const int64_t rows = t.rows(), cols = t.cols();
  std::vector<float> x(size_t(rows * cols));
  dispatch<float, fp16, bf16, e4m3, e5m2>(t.dtype(), "product", [&]<class T>() {
    const T* data = t.data<T>();
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < cols; ++c) {
        const float value = float(data[r * t.row_stride() + c]);
        x[size_t(transpose ? c * rows + r : r * cols + c)] = tf32 ? as_tf32(value) : value;
      }
  });
  return x;
}

// As in the library's epilogue: the activation of the sum before it is rounded.
template <class T>
void finish_row(const Product& p, int64_t i, const std::vector<float>& sums, const std::vector<float>& bias) {
  const float scale = p.of_codes() ? *p.a_scale.data<float>() * *p.b_scale.data<float>() : 1;
  T* c = p.c.data<T>() + i * p.c.row_stride();
  T* pre = p.pre ? p.pre.data<T>() + i * p.pre.row_stride() : nullptr;
  for (size_t j = 0; j < sums.size(); ++j) {
    const float sum = sums[j] * scale + (p.accumulate ? float(c[j]) : bias[j]);
    if (pre) pre[j] = T(sum);
    c[j] = T(activate(p.activation, sum));
  }
}

}  // namespace

struct Products::State {
  Runtime& runtime;
  ProductOptions options;
};

Products::Products(Runtime& runtime, ProductOptions options) : state_(new State{runtime, options}) {}
Products::~Products() = default;
int64_t Products::workspace_bytes() const { return 0; }
bool Products::multiplies_codes() { return state_->runtime.compute_capability() >= 89; }
bool Products::takes(const Product& p) { return extras_fit(p); }

namespace {

// The same memory without a share in it: what is queued must not change when the arena gets it back.
Tensor borrowed(const Tensor& t) {
  return t ? Tensor(t.raw(), {t.rows(), t.row_stride()}, t.dtype()).columns(0, t.cols()) : t;
}

void run(const Product& p, bool tf32) {
  const int64_t m = p.m(), n = p.n(), k = p.k();
  const std::vector<float> a = widened(p.a, p.transpose_a, tf32), b = widened(p.b, p.transpose_b, tf32);
  const std::vector<float> bias = p.bias ? widened(p.bias, false, false) : std::vector<float>(size_t(n));
  std::vector<float> sums(static_cast<size_t>(n));
  dispatch<float, fp16, bf16>(p.c.dtype(), "product", [&]<class T>() {
    for (int64_t i = 0; i < m; ++i) {
      std::fill(sums.begin(), sums.end(), 0.f);
      float of_a = 0;
      for (int64_t l = 0; l < k; ++l) {
        of_a += a[size_t(i * k + l)];
        for (int64_t j = 0; j < n; ++j) sums[size_t(j)] += a[size_t(i * k + l)] * b[size_t(l * n + j)];
      }
      finish_row<T>(p, i, sums, bias);
      if (p.a_sums) p.a_sums.data<T>()[i] = T(of_a);
    }
  });
}

}  // namespace

void Products::multiply(const Product& p, const Tensor&) {
  check(p);
  Product queued = p;
  for (Tensor* t :
       {&queued.c, &queued.a, &queued.b, &queued.bias, &queued.pre, &queued.a_sums, &queued.a_scale, &queued.b_scale})
    *t = borrowed(*t);
  const bool tf32 = state_->options.tf32 && p.a.dtype() == DType::f32;
  emulator::queue(state_->runtime, [queued, tf32] { run(queued, tf32); });
}

}  // namespace mixtape::cuda
