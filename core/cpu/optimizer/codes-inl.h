// Moments and weights in fewer bits than float32: vectors of them read, and written by chance. Include after
// foreach_target.h.
//
// A code type has `top`, the magnitude that its largest code stands for, `decode(p)`, and `encode(x, random, p)`, which
// takes |x| up to `top` and 16 evenly distributed bits for each lane.
#if defined(MIXTAPE_CPU_OPTIMIZER_CODES_H) == defined(HWY_TARGET_TOGGLE)
#ifdef MIXTAPE_CPU_OPTIMIZER_CODES_H
#undef MIXTAPE_CPU_OPTIMIZER_CODES_H
#else
#define MIXTAPE_CPU_OPTIMIZER_CODES_H
#endif

#include "core/cpu/simd.h"
#include "core/ops/optimizer_state.h"

HWY_BEFORE_NAMESPACE();
namespace mixtape::HWY_NAMESPACE {

using BitsTag = hn::RebindToUnsigned<FloatTag>;
using Bits = hn::Vec<BitsTag>;

// goes_up of core/ops/stochastic_rounding.h.
HWY_INLINE hn::Mask<FloatTag> goes_up(Vec x, Vec low, Vec high, Bits random) {
  const FloatTag d;
  const Vec draw = hn::ConvertTo(d, hn::BitCast(hn::RebindToSigned<FloatTag>(), random)), whole = set(65536.f);
  const Vec width = hn::Sub(high, low);
  return hn::Ge(hn::Add(hn::Mul(draw, width), hn::Mul(whole, hn::Sub(x, low))), hn::Mul(whole, width));
}

// s c |c| / 127^2 of int8.
struct SignedSquare {
  using Code = int8_t;
  static constexpr float top = 1;
  static HWY_INLINE Vec decode(const Code* p) {
    const Vec c = load(p);
    return hn::Mul(hn::Mul(c, hn::Abs(c)), set(1.f / (127 * 127)));
  }
  static HWY_INLINE void encode(Vec x, Bits random, Code* p) {
    const Vec square = hn::Mul(hn::Abs(x), set(127 * 127));
    const Vec low = hn::Min(hn::Floor(hn::Sqrt(square)), set(126)), high = hn::Add(low, set(1));
    const auto up = goes_up(square, hn::Mul(low, low), hn::Mul(high, high), random);
    store(hn::CopySign(hn::IfThenElse(up, high, low), x), p);
  }
};

// s (c / 255)^4 of uint8, 1 at least above 0.
struct FourthPower {
  using Code = uint8_t;
  static constexpr float top = 1;
  static HWY_INLINE Vec power(Vec c) {
    const Vec q = hn::Mul(c, set(1.f / 255)), square = hn::Mul(q, q);
    return hn::Mul(square, square);
  }
  static HWY_INLINE Vec decode(const Code* p) {
    const hn::RebindToSigned<FloatTag> di;
    const hn::Rebind<uint8_t, FloatTag> d8;
    return power(hn::ConvertTo(FloatTag(), hn::PromoteTo(di, hn::LoadU(d8, p))));
  }
  static HWY_INLINE void encode(Vec x, Bits random, Code* p) {
    const FloatTag d;
    const hn::Rebind<uint8_t, FloatTag> d8;
    const Vec low = hn::Min(hn::Floor(hn::Mul(hn::Sqrt(hn::Sqrt(x)), set(255))), set(254)), high = hn::Add(low, set(1));
    const auto up = hn::Or(goes_up(x, power(low), power(high), random), hn::Lt(low, set(1)));
    const Vec c = hn::IfThenElseZero(hn::Gt(x, hn::Zero(d)), hn::IfThenElse(up, high, low));
    hn::StoreU(hn::DemoteTo(d8, hn::NearestInt(c)), d8, p);
  }
};

// Of fp8: what lies between two of its numbers becomes one of them, which the conversion then keeps.
template <class E, bool above_zero>
struct Float8 {
  using Code = E;
  static constexpr float top = float(E::from_code(E::largest_code));
  static HWY_INLINE Vec decode(const Code* p) { return load(p); }
  static HWY_INLINE void encode(Vec x, Bits random, Code* p) {
    const FloatTag d;
    const BitsTag du;
    constexpr float least_normal = float(E::from_code(uint8_t(1 << E::mantissa_bits)));
    const Vec magnitude = hn::Max(hn::Abs(x), set(least_normal));
    const Vec power = hn::BitCast(d, hn::And(hn::BitCast(du, magnitude), hn::Set(du, 0x7f800000u)));
    const Vec place = hn::Mul(power, set(1.f / (1 << E::mantissa_bits)));
    const Vec low = hn::Mul(hn::Floor(hn::Div(hn::Abs(x), place)), place), high = hn::Add(low, place);
    Vec y = hn::IfThenElse(goes_up(hn::Abs(x), low, high, random), high, low);
    if constexpr (above_zero) {
      constexpr float least = float(E::from_code(1));
      y = hn::IfThenElse(hn::Gt(x, hn::Zero(d)), hn::Max(y, set(least)), y);
    }
    store(hn::CopySign(y, x), p);
  }
};

// As round_stochastically<bf16> does it. NaN stays one.
HWY_INLINE void store_by_chance(Vec v, Bits random, bf16* p) {
  const BitsTag du;
  const hn::RebindToSigned<FloatTag> di;
  const hn::Rebind<uint16_t, FloatTag> d16;
  const auto bits = hn::BitCast(du, canonical_nan(v));
  // At the end of the range, and of what is not finite, to nearest.
  const auto ends = hn::Gt(hn::BitCast(di, hn::And(bits, hn::Set(du, 0x7fffffffu))), hn::Set(di, 0x7f7effff));
  const auto add = hn::IfThenElse(hn::RebindMask(du, ends), hn::Set(du, 0x8000u), random);
  hn::StoreU(hn::DemoteTo(d16, hn::BitCast(di, hn::ShiftRight<16>(hn::Add(bits, add)))), d16,
             reinterpret_cast<uint16_t*>(p));
}

// What rounded_weight makes of masters, as float32, which a store then keeps as it is.
template <class T>
HWY_INLINE Vec as_weight(Vec master) {
  if constexpr (!std::is_same_v<T, bf16>) return master;
  const BitsTag du;
  const auto bits = hn::Add(hn::BitCast(du, canonical_nan(master)), hn::Set(du, 0x8000u));
  return hn::BitCast(FloatTag(), hn::And(bits, hn::Set(du, 0xffff0000u)));
}
// master_of and remainder_of.
HWY_INLINE Vec load_master(const bf16* weights, const uint16_t* remainders) {
  const FloatTag d;
  const hn::RebindToSigned<FloatTag> di;
  const hn::Rebind<int16_t, FloatTag> d16;
  const auto rest = hn::PromoteTo(di, hn::LoadU(d16, reinterpret_cast<const int16_t*>(remainders)));
  return hn::BitCast(d, hn::Add(hn::BitCast(di, load(weights)), rest));
}
HWY_INLINE void store_remainder(Vec master, uint16_t* p) {
  const BitsTag du;
  const hn::RebindToSigned<FloatTag> di;
  const hn::Rebind<uint16_t, FloatTag> d16;
  const auto low = hn::And(hn::BitCast(du, canonical_nan(master)), hn::Set(du, 0xffffu));
  hn::StoreU(hn::DemoteTo(d16, hn::BitCast(di, low)), d16, p);
}

}  // namespace mixtape::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
