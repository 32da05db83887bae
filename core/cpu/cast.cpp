// Conversions between element types, sums, rounding through codes and the largest magnitude: elementwise, bound by
// memory.
#include "core/cpu/targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/cpu/cast.cpp"
#include "hwy/foreach_target.h"
//
#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>

#include "core/base/code_scale.h"
#include "core/cpu/backend.h"
#include "core/cpu/rows.h"
#include "core/cpu/simd.h"

HWY_BEFORE_NAMESPACE();
namespace mixtape::HWY_NAMESPACE {
namespace {

// Any type to any other goes through floats in the first-level cache, a block at a time: one loop a type instead of one
// a pair.
constexpr int64_t block = 1024;

template <class From>
void widen(const From* x, float* y, int64_t n) {
  each_vector(n, [&](auto w, int64_t i) HWY_ATTR { w.store(w.load(x + i), y + i); });
}

template <class To>
void narrow(const float* x, To* y, int64_t n, float scale, bool accumulate) {
  const Vec factor = set(scale);
  if (!accumulate)
    return each_vector(n, [&](auto w, int64_t i) HWY_ATTR { w.store(hn::Mul(w.load(x + i), factor), y + i); });
  // Said plainly: left to the compiler, whole vectors would have one rounding here and the rest two, and the bits would
  // depend on where the threads' parts end.
  each_vector(n, [&](auto w, int64_t i) HWY_ATTR { w.store(hn::MulAdd(w.load(x + i), factor, w.load(y + i)), y + i); });
}

using Widen = void (*)(const std::byte* x, float* y, int64_t n);
using Narrow = void (*)(const float* x, std::byte* y, int64_t n, float scale, bool accumulate);

void raise_to(std::atomic<int32_t>& most, int32_t here) {
  int32_t before = most.load();
  while (before < here && !most.compare_exchange_weak(before, here)) {
  }
}

// Returns the bits of the largest magnitude of x, if they are asked for.
int32_t convert_piece(const Convert& a, Widen widen, Narrow narrow, const std::byte* x, std::byte* y, int64_t n) {
  const int64_t from_bytes = size_of(a.x.dtype()), to_bytes = size_of(a.y.tensor.dtype());
  alignas(64) float floats[block];
  int32_t largest = 0;
  for (int64_t i = 0; i < n; i += block) {
    const int64_t count = std::min(block, n - i);
    const float* source = reinterpret_cast<const float*>(x + i * from_bytes);
    if (widen) {
      widen(x + i * from_bytes, floats, count);
      source = floats;
    }
    if (a.amax) largest = std::max(largest, largest_bits(source, count));
    narrow(source, y + i * to_bytes, count, a.scale, a.y.accumulates());
  }
  return largest;
}

Widen widening_from(DType type) {
  Widen result = nullptr;  // fp32 is read where it is
  if (type == DType::f32) return result;
  dispatch<fp16, bf16, e4m3, e5m2, int8_t>(type, "convert", [&]<class T>() {
    result = [](const std::byte* x, float* y, int64_t n) { widen(reinterpret_cast<const T*>(x), y, n); };
  });
  return result;
}

Narrow narrowing_to(DType type) {
  Narrow result = nullptr;
  dispatch<float, fp16, bf16, e4m3, e5m2, int8_t>(type, "convert", [&]<class T>() {
    result = [](const float* x, std::byte* y, int64_t n, float scale, bool accumulate) {
      narrow(x, reinterpret_cast<T*>(y), n, scale, accumulate);
    };
  });
  return result;
}

template <class T>
void add_span(const T* a, const T* b, T* y, int64_t n) {
  each_vector(n, [&](auto w, int64_t i) HWY_ATTR { w.store(hn::Add(w.load(a + i), w.load(b + i)), y + i); });
}

template <class T>
int32_t largest_bits_of(const Tensor& t) {
  const Rows<const T> x(t);
  std::atomic<int32_t> most = 0;
  parallel_pieces({t}, [&](int64_t r, int64_t c, int64_t n) { raise_to(most, largest_bits(x[r] + c, n)); });
  return most;
}

// A row's elements, or all.
template <class T>
float largest_magnitude(const T* x, int64_t n) {
  return std::bit_cast<float>(largest_bits(x, n));
}

// y = scale * code(x / scale), through codes in the first-level cache. Returns the bits of the largest magnitude of x.
template <class Code, class T>
int32_t quantise_span(const T* x, T* y, int64_t n, float scale) {
  const float s = scale == 0 ? 1 : scale;  // of zeros, or of what stays as it is
  const Vec by = set(1 / s), back = set(s);
  const hn::RebindToSigned<FloatTag> di;
  auto most = hn::Zero(di);
  alignas(64) Code codes[HWY_MAX_BYTES];
  each_vector(n, [&](auto w, int64_t i) HWY_ATTR {
    const Vec v = w.load(x + i);
    most = hn::Max(most, hn::BitCast(di, hn::Abs(v)));
    store(hn::Mul(v, by), codes);
    w.store(hn::IfThenElse(hn::IsFinite(v), hn::Mul(load(codes), back), v), y + i);
  });
  return hn::GetLane(hn::MaxOfLanes(di, most));
}

template <class Code, class T>
void quantise_rows(const Quantise& a) {
  const Rows<const T> x(a.x);
  const Rows<T> y(a.y);
  std::atomic<int32_t> most = 0;
  if (a.by_rows) {
    parallel_for(a.x.rows(), row_grain(a.x.cols()), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r)
        raise_to(most,
                 quantise_span<Code>(x[r], y[r], a.x.cols(), code_scale(a.codes, largest_magnitude(x[r], a.x.cols()))));
    });
  } else {
    const float known = a.scale ? *a.scale.data<float>() : 0;
    const float scale = known != 0 ? known : code_scale(a.codes, std::bit_cast<float>(largest_bits_of<T>(a.x)));
    parallel_pieces({a.x, a.y}, [&](int64_t r, int64_t c, int64_t n) {
      raise_to(most, quantise_span<Code>(x[r] + c, y[r] + c, n, scale));
    });
  }
  if (!a.amax) return;
  float& amax = *a.amax.data<float>();
  amax = std::bit_cast<float>(std::max(std::bit_cast<int32_t>(amax), most.load()));
}

}  // namespace

void quantise(const Quantise& a) {
  dispatch<e4m3, e5m2, int8_t>(a.codes, "quantise", [&]<class Code>() {
    dispatch<float, fp16, bf16>(a.x.dtype(), "quantise", [&]<class T>() { quantise_rows<Code, T>(a); });
  });
}

void convert(const Convert& a) {
  const Widen widen = widening_from(a.x.dtype());
  const Narrow narrow = narrowing_to(a.y.tensor.dtype());
  const int64_t from_bytes = size_of(a.x.dtype()), to_bytes = size_of(a.y.tensor.dtype());
  std::atomic<int32_t> most = 0;
  parallel_pieces({a.x, a.y.tensor}, [&](int64_t r, int64_t c, int64_t n) {
    raise_to(most, convert_piece(a, widen, narrow, a.x.raw() + (r * a.x.row_stride() + c) * from_bytes,
                                 a.y.tensor.raw() + (r * a.y.tensor.row_stride() + c) * to_bytes, n));
  });
  if (a.amax) *a.amax.data<float>() = std::bit_cast<float>(most.load());
}

void add(const Add& a) {
  dispatch<float, fp16, bf16>(a.y.dtype(), "add", [&]<class T>() {
    const Rows<const T> first(a.a), second(a.b);
    const Rows<T> y(a.y);
    parallel_pieces({a.y, a.a, a.b},
                    [&](int64_t r, int64_t c, int64_t n) { add_span(first[r] + c, second[r] + c, y[r] + c, n); });
  });
}

void abs_max(const AbsMax& a) {
  dispatch<float, fp16, bf16>(a.x.dtype(), "abs_max", [&]<class T>() {
    *a.amax.data<float>() = std::bit_cast<float>(largest_bits_of<T>(a.x));
  });
}

}  // namespace mixtape::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mixtape {

HWY_EXPORT(convert);
HWY_EXPORT(add);
HWY_EXPORT(abs_max);
HWY_EXPORT(quantise);

void CpuCast::convert(const Convert& a) {
  if (backend_.planning() || !a.y) return;
  HWY_DYNAMIC_DISPATCH(convert)(a);
}

void CpuCast::add(const Add& a) {
  if (backend_.planning()) return;
  HWY_DYNAMIC_DISPATCH(add)(a);
}

void CpuCast::abs_max(const AbsMax& a) {
  if (backend_.planning()) return;
  HWY_DYNAMIC_DISPATCH(abs_max)(a);
}

void CpuCast::quantise(const Quantise& a) {
  if (backend_.planning()) return;
  HWY_DYNAMIC_DISPATCH(quantise)(a);
}

void CpuCast::update_scales(const UpdateScales& a) {
  if (backend_.planning()) return;
  const int64_t n = a.amax.count(), length = a.history.cols();
  float *const scale = a.scale.data<float>(), *const amax = a.amax.data<float>();
  for (int64_t i = 0; i < n; ++i) {
    float* const history = a.history.data<float>() + i * length;
    if (a.state->finite) {
      history[a.state->updates % uint64_t(length)] = std::isfinite(amax[i]) ? amax[i] : 0;
      scale[i] = code_scale(a.codes[size_t(i % 3)], *std::max_element(history, history + length), a.margin);
    }
    amax[i] = 0;
  }
}

}  // namespace mixtape
#endif
