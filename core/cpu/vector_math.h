// exp, log, tanh and erf of float vectors, for any instruction set. Include after hwy/foreach_target.h.
//
// Accurate over the whole range: infinities, NaN, zeros and subnormals give what the C library gives. The largest
// errors against float64 with fused multiply-add (tests/ops/vector_math_test.cpp), in units in the last place: Exp 1.1,
// Log 0.9, Tanh 2.6, Erf 2.6. The polynomials and rational functions are minimax fits made for this file.
#if defined(MIXTAPE_CPU_VECTOR_MATH_H) == defined(HWY_TARGET_TOGGLE)
#ifdef MIXTAPE_CPU_VECTOR_MATH_H
#undef MIXTAPE_CPU_VECTOR_MATH_H
#else
#define MIXTAPE_CPU_VECTOR_MATH_H
#endif

#include "core/cpu/targets.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace mixtape::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// c[0] + c[1] x + c[2] x^2 + ...
template <class D, class V, size_t N>
HWY_INLINE V Polynomial(D d, V x, const float (&c)[N]) {
  V y = hn::Set(d, c[N - 1]);
  for (size_t i = N - 1; i-- > 0;) y = hn::MulAdd(y, x, hn::Set(d, c[i]));
  return y;
}

// x in [low, high]; NaN stays NaN.
template <class D, class V>
HWY_INLINE V Limit(D d, V x, float low, float high) {
  const V l = hn::Set(d, low), h = hn::Set(d, high);
#if HWY_TARGET <= HWY_AVX2  // x86 returns the second argument when one is NaN
  return hn::Max(l, hn::Min(h, x));
#else
  return hn::IfThenElse(hn::Lt(x, l), l, hn::IfThenElse(hn::Gt(x, h), h, x));
#endif
}

// x = n ln 2 + r with |r| <= ln(2) / 2, n an integer; e^r = 1 + r + r^2 p(r).
template <class D, class V>
HWY_INLINE V ExpParts(D d, V x, hn::Vec<hn::RebindToSigned<D>>& n) {
  const hn::RebindToSigned<D> di;
  // Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits.
  const V magic = hn::Set(d, 12582912.f);
  const V shifted = hn::MulAdd(x, hn::Set(d, 1.44269504f), magic);
  n = hn::Sub(hn::BitCast(di, shifted), hn::BitCast(di, magic));
  const V whole = hn::Sub(shifted, magic);
  V r = hn::NegMulAdd(whole, hn::Set(d, 0.693359375f), x);  // exact: the constant has 10 bits
  r = hn::NegMulAdd(whole, hn::Set(d, -2.12194440e-4f), r);
  constexpr float p[] = {0.5f, 0.166665763f, 0.0416665524f, 0.00836323295f, 0.00139262504f};
  return hn::Add(hn::MulAdd(hn::Mul(r, r), Polynomial(d, r, p), r), hn::Set(d, 1.f));
}

// 2^n for n in [-127, 128], where the ends give 0 and infinity.
template <class D, class VI>
HWY_INLINE hn::Vec<D> PowerOfTwo(D d, VI n) {
  const hn::RebindToSigned<D> di;
  return hn::BitCast(d, hn::ShiftLeft<23>(hn::Add(n, hn::Set(di, 127))));
}

// e^x.
template <class D, class V>
HWY_INLINE V Exp(D d, V x) {
  hn::Vec<hn::RebindToSigned<D>> n;
  const V y = ExpParts(d, Limit(d, x, -104.f, 89.f), n);  // beyond these the result is 0 or infinite anyway
  // 2^n as two factors, since n may be 128 and the result subnormal.
  const auto half = hn::ShiftRight<1>(n);
  return hn::Mul(hn::Mul(y, PowerOfTwo(d, half)), PowerOfTwo(d, hn::Sub(n, half)));
}

// e^x at three quarters of the price: 0 below -87.7 and infinite above 88.3, where Exp has values left.
template <class D, class V>
HWY_INLINE V FastExp(D d, V x) {
  hn::Vec<hn::RebindToSigned<D>> n;
  const V y = ExpParts(d, Limit(d, x, -88.f, 89.f), n);
  return hn::Mul(y, PowerOfTwo(d, n));
}

// Natural logarithm. x = 2^e (1 + f) with sqrt(1/2) <= 1 + f < sqrt(2); ln(1 + f) = f - f^2/2 + f^3 p(f).
template <class D, class V>
HWY_INLINE V Log(D d, V x) {
  const hn::RebindToSigned<D> di;
  const auto subnormal = hn::Lt(x, hn::Set(d, 1.17549435e-38f));
  const V scaled = hn::IfThenElse(subnormal, hn::Mul(x, hn::Set(d, 8388608.f)), x);
  const auto bits = hn::BitCast(di, scaled);
  const auto e = hn::ShiftRight<23>(hn::Sub(bits, hn::Set(di, 0x3f3504f3)));
  const V f = hn::Sub(hn::BitCast(d, hn::Sub(bits, hn::ShiftLeft<23>(e))), hn::Set(d, 1.f));
  const V exponent = hn::Sub(hn::ConvertTo(d, e), hn::IfThenElseZero(subnormal, hn::Set(d, 23.f)));
  constexpr float p[] = {0.333333313f,  -0.24999997f, 0.200007156f,  -0.166678026f, 0.142490581f,
                         -0.124256872f, 0.116854198f, -0.114797339f, 0.0697161183f};
  const V f2 = hn::Mul(f, f);
  V y = hn::Mul(hn::Mul(f2, f), Polynomial(d, f, p));
  y = hn::MulAdd(exponent, hn::Set(d, -2.12194440e-4f), y);
  y = hn::Add(f, hn::NegMulAdd(f2, hn::Set(d, 0.5f), y));
  y = hn::MulAdd(exponent, hn::Set(d, 0.693359375f), y);
  const V infinity = hn::Inf(d);
  y = hn::IfThenElse(hn::Eq(x, infinity), infinity, y);
  y = hn::IfThenElse(hn::Eq(x, hn::Zero(d)), hn::Neg(infinity), y);
  return hn::IfThenElse(hn::Ge(x, hn::Zero(d)), y, hn::NaN(d));
}

// x P(x^2) / Q(x^2), cut off at +-limit, beyond which the function is 1 in float32.
template <class D, class V, size_t N, size_t M>
HWY_INLINE V OddRational(D d, V x, float limit, const float (&p)[N], const float (&q)[M]) {
  x = Limit(d, x, -limit, limit);
  const V z = hn::Mul(x, x);
  const V y = hn::Div(hn::Mul(x, Polynomial(d, z, p)), Polynomial(d, z, q));
  return Limit(d, y, -1.f, 1.f);
}

template <class D, class V>
HWY_INLINE V Tanh(D d, V x) {
  constexpr float p[] = {1.f, 0.13679868f, 0.00386826927f, 2.8006305e-05f, 3.05823455e-08f, -1.22015661e-11f};
  constexpr float q[] = {1.f, 0.470131993f, 0.027245624f, 0.000393852883f, 1.2872872e-06f};
  return OddRational(d, x, 9.02f, p, q);
}

template <class D, class V>
HWY_INLINE V Erf(D d, V x) {
  constexpr float p[] = {1.12837911f, 0.19039619f, 0.0527473874f, 0.00376519375f, 0.000284876412f, 2.05020046e-06f};
  constexpr float q[] = {1.f, 0.50206697f, 0.114104889f, 0.0149683515f, 0.00116243982f, 3.8092574e-05f};
  return OddRational(d, x, 3.92f, p, q);
}

}  // namespace mixtape::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
