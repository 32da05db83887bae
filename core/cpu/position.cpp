// Rotary position embedding. Each pair of columns is read before it is written, so that y may be x.
#include "core/cpu/targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/cpu/position.cpp"
#include "hwy/foreach_target.h"
//
#include "core/cpu/backend.h"
#include "core/cpu/rows.h"
#include "core/cpu/simd.h"

HWY_BEFORE_NAMESPACE();
namespace mixtape::HWY_NAMESPACE {
namespace {

template <class T>
void rotate_head(const T* x, T* y, const float* cosine, const float* sine, int64_t half, float sign, bool accumulate) {
  const Vec direction = set(sign);
  each_vector(half, [&](auto w, int64_t i) HWY_ATTR {
    const Vec c = w.load(cosine + i), s = hn::Mul(w.load(sine + i), direction);
    const Vec a = w.load(x + i), b = w.load(x + half + i);
    w.put(hn::NegMulAdd(b, s, hn::Mul(a, c)), y + i, accumulate);
    w.put(hn::MulAdd(a, s, hn::Mul(b, c)), y + half + i, accumulate);
  });
}

template <class T>
void copy_columns(const T* x, T* y, int64_t n, bool accumulate) {
  if (x == y && !accumulate) return;
  each_vector(n, [&](auto w, int64_t i) HWY_ATTR { w.put(w.load(x + i), y + i, accumulate); });
}

template <class T>
void rope_rows(const Rope& a, int64_t begin, int64_t end) {
  const RopeSpec& s = a.spec;
  const int64_t half = s.rotary_dim / 2, rotated = s.heads * s.head_dim;
  const bool accumulate = a.y.accumulates();
  const Rows<const T> x(a.x);
  const Rows<T> y(a.y.tensor);
  const Rows<const float> table(a.table);
  const int32_t* position = a.position.data<int32_t>();
  for (int64_t r = begin; r < end; ++r) {
    const float* cosine = table[position[r]];
    for (int64_t h = 0; h < s.heads; ++h) {
      const T* from = x[r] + h * s.head_dim;
      T* to = y[r] + h * s.head_dim;
      rotate_head(from, to, cosine, cosine + half, half, a.inverse ? -1.f : 1.f, accumulate);
      copy_columns(from + s.rotary_dim, to + s.rotary_dim, s.head_dim - s.rotary_dim, accumulate);
    }
    copy_columns(x[r] + rotated, y[r] + rotated, a.x.cols() - rotated, accumulate);
  }
}

}  // namespace

void rope(const Rope& a) {
  dispatch<float, fp16, bf16>(a.x.dtype(), "rope", [&]<class T>() {
    parallel_for(a.x.rows(), row_grain(a.x.cols()), [&](int64_t begin, int64_t end) { rope_rows<T>(a, begin, end); });
  });
}

}  // namespace mixtape::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mixtape {

HWY_EXPORT(rope);

void CpuPosition::rope(const Rope& a) {
  if (backend_.planning() || !a.y) return;
  const int32_t* position = a.position.data<int32_t>();
  for (int64_t r = 0; r < a.x.rows(); ++r)
    if (position[r] < 0 || position[r] >= a.table.rows())
      throw DataError("rope: position {} in row {}, but the table has {} rows", position[r], r, a.table.rows());
  HWY_DYNAMIC_DISPATCH(rope)(a);
}

}  // namespace mixtape
#endif
