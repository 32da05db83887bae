// Element types and their exact conversions.
//
// All conversions round to nearest, ties to even, directly from float32 (never through a third type). fp16, bf16 and
// e5m2 overflow to infinity; e4m3 has no infinity and overflows to NaN. The `saturating` forms give the largest finite
// value instead, also for infinities, as CUDA's __NV_SATFINITE does. NaN stays NaN. tests/base/dtype_test.cpp holds
// every code and 4096 hard inputs against tests/golden/cast.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string_view>

#include "core/base/error.h"

namespace mixtape {

enum class DType : uint8_t { f32, f16, bf16, e4m3, e5m2, i8, u8, u16, i32, i64 };

constexpr int64_t size_of(DType type) {
  switch (type) {
    case DType::f32:
    case DType::i32:
      return 4;
    case DType::f16:
    case DType::bf16:
    case DType::u16:
      return 2;
    case DType::e4m3:
    case DType::e5m2:
    case DType::i8:
    case DType::u8:
      return 1;
    case DType::i64:
      return 8;
  }
  return 0;
}

constexpr std::string_view name_of(DType type) {
  switch (type) {
    case DType::f32:
      return "fp32";
    case DType::f16:
      return "fp16";
    case DType::bf16:
      return "bf16";
    case DType::e4m3:
      return "e4m3";
    case DType::e5m2:
      return "e5m2";
    case DType::i8:
      return "int8";
    case DType::u8:
      return "uint8";
    case DType::u16:
      return "uint16";
    case DType::i32:
      return "int32";
    case DType::i64:
      return "int64";
  }
  return "?";
}

// A binary floating-point format narrower than fp32, as a code and its conversions.
// ExponentBits and MantissaBits describe the layout; Finite says that the format has no infinity (e4m3fn: the codes
// that would be infinity are finite numbers, and only the all-ones code is NaN).
template <class Code, int ExponentBits, int MantissaBits, bool Finite>
struct MiniFloat {
  static constexpr int bias = (1 << (ExponentBits - 1)) - 1;
  static constexpr int mantissa_bits = MantissaBits;
  static constexpr Code sign_mask = Code(Code(1) << (ExponentBits + MantissaBits));
  static constexpr Code magnitude_mask = Code(sign_mask - 1);
  static constexpr Code infinity_code = Code(((1u << ExponentBits) - 1) << MantissaBits);  // e4m3: 256, still finite
  static constexpr Code nan_code = Finite ? magnitude_mask : Code(infinity_code | (1u << (MantissaBits - 1)));
  static constexpr Code largest_code = Finite ? Code(magnitude_mask - 1) : Code(infinity_code - 1);

  Code code = 0;

  MiniFloat() = default;
  constexpr explicit MiniFloat(float value) : code(round(value, false)) {}
  constexpr explicit operator float() const { return widen(code); }
  static constexpr MiniFloat from_code(Code code) {
    MiniFloat x;
    x.code = code;
    return x;
  }
  static constexpr MiniFloat saturating(float value) { return from_code(round(value, true)); }

 private:
  static constexpr Code round(float value, bool saturate) {
    const uint32_t bits = std::bit_cast<uint32_t>(value);
    const Code sign = (bits >> 31) ? sign_mask : Code(0);
    const uint32_t magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return Code(sign | nan_code);
    const Code overflow = saturate ? largest_code : Finite ? nan_code : infinity_code;
    if (magnitude == 0x7f800000u) return Code(sign | overflow);

    // The significand as an integer (with its hidden bit), and how many of its low bits the format cannot hold.
    const int exponent = int(magnitude >> 23);
    const uint32_t significand = exponent == 0 ? magnitude & 0x7fffffu : (magnitude & 0x7fffffu) | 0x800000u;
    int target_exponent = (exponent == 0 ? 1 : exponent) - 127 + bias;
    int drop = 23 - MantissaBits;
    if (target_exponent < 1) {  // subnormal in the format: the exponent stays at its least, more bits are dropped
      drop += 1 - target_exponent;
      target_exponent = 1;
    }
    if (drop > 24) return sign;  // less than half of the least subnormal
    const uint64_t wide = significand;
    const uint64_t half = drop == 0 ? 0 : uint64_t(1) << (drop - 1);
    const uint64_t remainder = wide & ((uint64_t(1) << drop) - 1);
    uint64_t kept = wide >> drop;
    if (drop > 0 && (remainder > half || (remainder == half && (kept & 1)))) ++kept;
    // A carry out of the mantissa moves into the exponent by itself, from subnormal to normal and from finite to over.
    const uint64_t result = kept + (uint64_t(target_exponent - 1) << MantissaBits);
    return Code(sign | (result > largest_code ? overflow : Code(result)));
  }

  static constexpr float widen(Code code) {
    const uint32_t sign = (code & sign_mask) ? 0x80000000u : 0u;
    const uint32_t magnitude = code & magnitude_mask;
    if (Finite ? magnitude == nan_code : magnitude > infinity_code) return std::bit_cast<float>(sign | 0x7fc00000u);
    if (!Finite && magnitude == infinity_code) return std::bit_cast<float>(sign | 0x7f800000u);
    const uint32_t exponent = magnitude >> MantissaBits;
    uint32_t mantissa = magnitude & ((1u << MantissaBits) - 1);
    if (exponent != 0)
      return std::bit_cast<float>(sign | ((exponent + 127 - bias) << 23) | (mantissa << (23 - MantissaBits)));
    if (mantissa == 0) return std::bit_cast<float>(sign);
    // Subnormal: shift the leading one to the hidden bit; each shift halves the exponent's value. bf16 shares fp32's
    // exponent range, so its subnormals are fp32 subnormals.
    if (bias == 127) return std::bit_cast<float>(sign | (mantissa << (23 - MantissaBits)));
    int shift = 0;
    while (!(mantissa >> MantissaBits)) mantissa <<= 1, ++shift;
    mantissa &= (1u << MantissaBits) - 1;
    return std::bit_cast<float>(sign | (uint32_t(1 - shift + 127 - bias) << 23) | (mantissa << (23 - MantissaBits)));
  }
};

struct fp16 : MiniFloat<uint16_t, 5, 10, false> {
  using MiniFloat::MiniFloat;
};
struct bf16 : MiniFloat<uint16_t, 8, 7, false> {
  using MiniFloat::MiniFloat;
};
struct e4m3 : MiniFloat<uint8_t, 4, 3, true> {
  using MiniFloat::MiniFloat;
};
struct e5m2 : MiniFloat<uint8_t, 5, 2, false> {
  using MiniFloat::MiniFloat;
};

template <class T>
inline constexpr DType dtype_of = DType::f32;
template <>
inline constexpr DType dtype_of<float> = DType::f32;
template <>
inline constexpr DType dtype_of<fp16> = DType::f16;
template <>
inline constexpr DType dtype_of<bf16> = DType::bf16;
template <>
inline constexpr DType dtype_of<e4m3> = DType::e4m3;
template <>
inline constexpr DType dtype_of<e5m2> = DType::e5m2;
template <>
inline constexpr DType dtype_of<int8_t> = DType::i8;
template <>
inline constexpr DType dtype_of<uint8_t> = DType::u8;
template <>
inline constexpr DType dtype_of<uint16_t> = DType::u16;
template <>
inline constexpr DType dtype_of<int32_t> = DType::i32;
template <>
inline constexpr DType dtype_of<int64_t> = DType::i64;

// The unit roundoff of a floating type: half the distance from 1 to the next number.
constexpr double roundoff(DType type) {
  switch (type) {
    case DType::f32:
      return 0x1p-24;
    case DType::f16:
      return 0x1p-11;
    case DType::bf16:
      return 0x1p-8;
    case DType::e4m3:
      return 0x1p-4;
    case DType::e5m2:
      return 0x1p-3;
    default:
      return 0;
  }
}

}  // namespace mixtape

template <>
struct fmt::formatter<mixtape::DType> : fmt::formatter<std::string_view> {
  auto format(mixtape::DType type, format_context& context) const {
    return fmt::formatter<std::string_view>::format(mixtape::name_of(type), context);
  }
};
