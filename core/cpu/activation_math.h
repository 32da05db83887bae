// The activations on float vectors, with their derivatives: what the kernels of
// activation.cpp are made of. Include after hwy/foreach_target.h.
#if defined(MIXTAPE_CPU_ACTIVATION_MATH_H) == defined(HWY_TARGET_TOGGLE)
#ifdef MIXTAPE_CPU_ACTIVATION_MATH_H
#undef MIXTAPE_CPU_ACTIVATION_MATH_H
#else
#define MIXTAPE_CPU_ACTIVATION_MATH_H
#endif

#include "core/cpu/simd.h"
#include "core/cpu/vector_math.h"
#include "core/ops/activation.h"

HWY_BEFORE_NAMESPACE();
namespace mixtape::HWY_NAMESPACE {

struct ActivationValue {
  Vec value, derivative;
};

// 1 / (1 + exp(-x)): 0 and 1 at the ends, without overflow on the way.
HWY_INLINE Vec Sigmoid(Vec x) {
  const Vec one = set(1);
  return hn::Div(one, hn::Add(one, FastExp(FloatTag(), hn::Neg(x))));
}

struct Relu {
  static HWY_INLINE Vec value(Vec x) { return hn::IfThenElse(hn::Lt(x, set(0)), set(0), x); }  // NaN stays NaN
  static HWY_INLINE ActivationValue both(Vec x) { return {value(x), hn::IfThenElseZero(hn::Gt(x, set(0)), set(1))}; }
};

struct Gelu {
  // The normal distribution's function.
  static HWY_INLINE Vec phi(Vec x) {
    const Vec half = set(0.5f);
    return hn::MulAdd(half, Erf(FloatTag(), hn::Mul(x, set(0.707106781f))), half);
  }
  static HWY_INLINE Vec value(Vec x) { return hn::Mul(x, phi(x)); }
  static HWY_INLINE ActivationValue both(Vec x) {
    const Vec p = phi(x);
    const Vec density = hn::Mul(set(0.398942280f), FastExp(FloatTag(), hn::Mul(hn::Mul(x, x), set(-0.5f))));
    return {hn::Mul(x, p), hn::MulAdd(x, density, p)};
  }
};

// x/2 (1 + tanh(u)) is x sigmoid(2u): one exponential, and exact where tanh is near -1.
struct GeluTanh {
  static constexpr float linear = 1.59576912f;      // 2 sqrt(2/pi)
  static constexpr float cubic = 0.0713548162726f;  // 2 sqrt(2/pi) 0.044715

  static HWY_INLINE Vec gate(Vec x) { return Sigmoid(hn::Mul(x, hn::MulAdd(hn::Mul(x, x), set(cubic), set(linear)))); }
  static HWY_INLINE Vec value(Vec x) { return hn::Mul(x, gate(x)); }
  static HWY_INLINE ActivationValue both(Vec x) {
    const Vec s = gate(x);
    // Beyond +-16 the slope's factor s (1 - s) is 0: there the square must not be infinite.
    const Vec z = Limit(FloatTag(), x, -16.f, 16.f);
    const Vec slope = hn::MulAdd(hn::Mul(z, z), set(3 * cubic), set(linear));  // of 2u
    const Vec change = hn::Mul(hn::Mul(s, hn::Sub(set(1), s)), slope);
    return {hn::Mul(x, s), hn::MulAdd(z, change, s)};
  }
};

struct Silu {
  static HWY_INLINE Vec value(Vec x) { return hn::Mul(x, Sigmoid(x)); }
  static HWY_INLINE ActivationValue both(Vec x) {
    const Vec s = Sigmoid(x);
    return {hn::Mul(x, s), hn::MulAdd(hn::Mul(x, s), hn::Sub(set(1), s), s)};
  }
};

struct HyperbolicTangent {
  static HWY_INLINE Vec value(Vec x) { return Tanh(FloatTag(), x); }
  static HWY_INLINE ActivationValue both(Vec x) {
    const Vec y = value(x);
    return {y, hn::NegMulAdd(y, y, set(1))};
  }
};

// body.operator()<Kind>() for the activation's type.
template <class Body>
void dispatch_activation(Unary kind, Body&& body) {
  switch (kind) {
    case Unary::relu:
      return body.template operator()<Relu>();
    case Unary::gelu:
      return body.template operator()<Gelu>();
    case Unary::gelu_tanh:
      return body.template operator()<GeluTanh>();
    case Unary::silu:
      return body.template operator()<Silu>();
    case Unary::tanh:
      return body.template operator()<HyperbolicTangent>();
    case Unary::none:
      break;
  }
  throw Error("activation: none was given");
}

}  // namespace mixtape::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
