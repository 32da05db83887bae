// What vector kernels share: float vectors loaded from and stored to fp32, fp16 and bf16, tails, sums, and spans of
// work.
//
// All arithmetic is in float32. Stores round to nearest even and give the same bits as core/base/dtype.h. Kernels loop
// with `each_vector`, whose body is written once for whole vectors and for the last, partial one; nothing outside the
// range is touched. Include after hwy/foreach_target.h; see targets.h.
#if defined(MIXTAPE_CPU_SIMD_H) == defined(HWY_TARGET_TOGGLE)
#ifdef MIXTAPE_CPU_SIMD_H
#undef MIXTAPE_CPU_SIMD_H
#else
#define MIXTAPE_CPU_SIMD_H
#endif

#include <array>
#include <cstring>

#include "core/base/dispatch.h"
#include "core/cpu/parallel.h"
#include "core/cpu/targets.h"
#include "core/tensor.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace mixtape::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using FloatTag = hn::ScalableTag<float>;
using Vec = hn::Vec<FloatTag>;

HWY_INLINE int64_t lanes() { return int64_t(hn::Lanes(FloatTag())); }
HWY_INLINE Vec set(float x) { return hn::Set(FloatTag(), x); }

// Any NaN becomes the quiet one with the same sign, as dtype.h's conversions give.
HWY_INLINE Vec canonical_nan(Vec v) {
  const FloatTag d;
  const hn::RebindToUnsigned<FloatTag> du;
  const Vec sign = hn::And(v, hn::BitCast(d, hn::Set(du, 0x80000000u)));
  return hn::IfThenElse(hn::IsNaN(v), hn::Or(sign, hn::BitCast(d, hn::Set(du, 0x7fc00000u))), v);
}

HWY_INLINE Vec load(const float* p) { return hn::LoadU(FloatTag(), p); }
HWY_INLINE void store(Vec v, float* p) { hn::StoreU(v, FloatTag(), p); }

// The codes are moved as uint16_t: memory of fp16 and bf16 holds nothing else.
HWY_INLINE Vec load(const bf16* p) {
  const FloatTag d;
  const hn::RebindToUnsigned<FloatTag> du;
  const hn::Rebind<uint16_t, FloatTag> d16;
  const auto codes = hn::LoadU(d16, reinterpret_cast<const uint16_t*>(p));
  return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(du, codes)));
}

HWY_INLINE void store(Vec v, bf16* p) {
  const hn::RebindToUnsigned<FloatTag> du;
  const hn::RebindToSigned<FloatTag> di;
  const hn::Rebind<uint16_t, FloatTag> d16;
  const auto bits = hn::BitCast(du, canonical_nan(v));
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1));
  const auto rounded = hn::ShiftRight<16>(hn::Add(bits, hn::Add(odd, hn::Set(du, 0x7fff))));
  hn::StoreU(hn::DemoteTo(d16, hn::BitCast(di, rounded)), d16, reinterpret_cast<uint16_t*>(p));
}

#if HWY_TARGET <= HWY_AVX2  // with F16C, whose conversions are exact and round to nearest even
HWY_INLINE Vec load(const fp16* p) {
  const hn::Rebind<hwy::float16_t, FloatTag> d16;
  return hn::PromoteTo(FloatTag(), hn::LoadU(d16, reinterpret_cast<const hwy::float16_t*>(p)));
}

HWY_INLINE void store(Vec v, fp16* p) {
  const hn::Rebind<hwy::float16_t, FloatTag> d16;
  hn::StoreU(hn::DemoteTo(d16, canonical_nan(v)), d16, reinterpret_cast<hwy::float16_t*>(p));
}
#else
HWY_INLINE Vec load(const fp16* p) {
  HWY_ALIGN float values[HWY_MAX_BYTES / sizeof(float)];
  for (int64_t i = 0; i < lanes(); ++i) values[i] = float(p[i]);
  return hn::Load(FloatTag(), values);
}

HWY_INLINE void store(Vec v, fp16* p) {
  HWY_ALIGN float values[HWY_MAX_BYTES / sizeof(float)];
  hn::Store(v, FloatTag(), values);
  for (int64_t i = 0; i < lanes(); ++i) p[i] = fp16(values[i]);
}
#endif

// The 8-bit storage types: values by table, codes by rounding. Stores saturate: beyond the largest finite value,
// infinities too, they give that value.
template <class E>
requires(std::is_same_v<E, e4m3> || std::is_same_v<E, e5m2>) HWY_INLINE Vec load(const E* p) {
  static constexpr auto table = [] {
    std::array<float, 256> values{};
    for (int code = 0; code < 256; ++code) values[code] = float(E::from_code(uint8_t(code)));
    return values;
  }();
  HWY_ALIGN float values[HWY_MAX_BYTES / sizeof(float)];
  for (int64_t i = 0; i < lanes(); ++i) values[i] = table[p[i].code];
  return hn::Load(FloatTag(), values);
}

template <class E>
requires(std::is_same_v<E, e4m3> || std::is_same_v<E, e5m2>) HWY_INLINE void store(Vec v, E* p) {
  const hn::RebindToUnsigned<FloatTag> du;
  const hn::RebindToSigned<FloatTag> di;
  const hn::Rebind<uint8_t, FloatTag> d8;
  constexpr int mantissa = E::mantissa_bits, drop = 23 - mantissa;
  constexpr float largest = float(E::from_code(E::largest_code));
  constexpr float least_normal = float(E::from_code(uint8_t(1 << mantissa)));
  constexpr float least = float(E::from_code(1));

  const Vec magnitude = hn::Min(hn::Abs(v), set(largest));
  const auto bits = hn::BitCast(du, magnitude);
  const auto odd = hn::And(hn::ShiftRight<drop>(bits), hn::Set(du, 1));
  const auto rounded = hn::ShiftRight<drop>(hn::Add(bits, hn::Add(odd, hn::Set(du, (1u << (drop - 1)) - 1))));
  const auto normal = hn::Sub(rounded, hn::Set(du, uint32_t(127 - E::bias) << mantissa));
  // Adding a number whose last place is the least subnormal rounds to a multiple of that.
  const Vec magic = set(least * 8388608.f);
  const auto subnormal = hn::Sub(hn::BitCast(du, hn::Add(magnitude, magic)), hn::BitCast(du, magic));
  const auto is_subnormal = hn::RebindMask(du, hn::Lt(magnitude, set(least_normal)));
  auto code = hn::IfThenElse(is_subnormal, subnormal, normal);
  code = hn::IfThenElse(hn::RebindMask(du, hn::IsNaN(v)), hn::Set(du, E::nan_code), code);
  const auto sign = hn::And(hn::ShiftRight<24>(hn::BitCast(du, v)), hn::Set(du, 0x80));
  hn::StoreU(hn::DemoteTo(d8, hn::BitCast(di, hn::Or(code, sign))), d8, reinterpret_cast<uint8_t*>(p));
}

HWY_INLINE Vec load(const int8_t* p) {
  const hn::RebindToSigned<FloatTag> di;
  const hn::Rebind<int8_t, FloatTag> d8;
  return hn::ConvertTo(FloatTag(), hn::PromoteTo(di, hn::LoadU(d8, p)));
}

// Rounded to nearest even, clamped to [-127, 127]; NaN gives 0.
HWY_INLINE void store(Vec v, int8_t* p) {
  const hn::Rebind<int8_t, FloatTag> d8;
  const Vec number = hn::IfThenZeroElse(hn::IsNaN(v), v);
  const auto whole = hn::NearestInt(hn::Max(set(-127), hn::Min(set(127), number)));
  hn::StoreU(hn::DemoteTo(d8, whole), d8, p);
}

// How the body of each_vector reaches memory: a whole vector, or its first n elements (the rest reads as 0).
struct Whole {
  template <class T>
  HWY_INLINE Vec load(const T* p) const {
    return HWY_NAMESPACE::load(p);
  }
  template <class T>
  HWY_INLINE void store(Vec v, T* p) const {
    HWY_NAMESPACE::store(v, p);
  }
  // Stores, or adds to what is there.
  template <class T>
  HWY_INLINE void put(Vec v, T* p, bool accumulate) const {
    store(accumulate ? hn::Add(load(p), v) : v, p);
  }
  HWY_INLINE Vec only(Vec v) const { return v; }
};

struct Part {
  int64_t n;

  template <class T>
  HWY_INLINE Vec load(const T* p) const {
    alignas(64) T copy[HWY_MAX_BYTES / sizeof(float)] = {};
    std::memcpy(copy, p, n * sizeof(T));
    return HWY_NAMESPACE::load(copy);
  }
  template <class T>
  HWY_INLINE void store(Vec v, T* p) const {
    alignas(64) T copy[HWY_MAX_BYTES / sizeof(float)];
    HWY_NAMESPACE::store(v, copy);
    std::memcpy(p, copy, n * sizeof(T));
  }
  template <class T>
  HWY_INLINE void put(Vec v, T* p, bool accumulate) const {
    store(accumulate ? hn::Add(load(p), v) : v, p);
  }
  // v in the first n elements, 0 in the others: for sums of terms that are not 0 where the inputs are.
  HWY_INLINE Vec only(Vec v) const { return hn::IfThenElseZero(hn::FirstN(FloatTag(), size_t(n)), v); }
};

// body(w, i) for i = 0, lanes, 2 lanes, ... below n; w is a Whole or a Part.
template <class Body>
HWY_INLINE void each_vector(int64_t n, Body&& body) {
  const int64_t step = lanes();
  int64_t i = 0;
  for (; i + step <= n; i += step) body(Whole(), i);
  if (i < n) body(Part{n - i}, i);
}

// The bits of the largest magnitude. As integers, magnitudes are ordered like the numbers, with NaN above infinity.
template <class T>
int32_t largest_bits(const T* x, int64_t n) {
  const hn::RebindToSigned<FloatTag> di;
  auto most = hn::Zero(di);
  each_vector(n, [&](auto w, int64_t i) HWY_ATTR { most = hn::Max(most, hn::BitCast(di, hn::Abs(w.load(x + i)))); });
  return hn::GetLane(hn::MaxOfLanes(di, most));
}

// The sum of term(w, i) over the same vectors, in an order that depends on n alone. Four running sums, because one
// would wait for each addition's latency.
template <class Term>
HWY_INLINE float sum_over(int64_t n, Term&& term) {
  const FloatTag d;
  const int64_t step = lanes();
  Vec s0 = hn::Zero(d), s1 = s0, s2 = s0, s3 = s0;
  int64_t i = 0;
  for (; i + 4 * step <= n; i += 4 * step) {
    s0 = hn::Add(s0, term(Whole(), i));
    s1 = hn::Add(s1, term(Whole(), i + step));
    s2 = hn::Add(s2, term(Whole(), i + 2 * step));
    s3 = hn::Add(s3, term(Whole(), i + 3 * step));
  }
  for (; i + step <= n; i += step) s0 = hn::Add(s0, term(Whole(), i));
  if (i < n) s1 = hn::Add(s1, Part{n - i}.only(term(Part{n - i}, i)));
  return hn::GetLane(hn::SumOfLanes(d, hn::Add(hn::Add(s0, s1), hn::Add(s2, s3))));
}

}  // namespace mixtape::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
