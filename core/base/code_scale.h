// The scale of 8-bit codes: a number x is kept as the code nearest to x / scale.
#pragma once

#include <bit>
#include <cstdint>

#include "core/base/dtype.h"

namespace mixtape {

// From the largest magnitude that the codes shall hold; 0 if that is 0, infinite or NaN.
//   e4m3, e5m2: 2^margin times the least power of two s with amax / s <= 448, 57344. A power of two, so that scaling is
//   exact wherever it is done, and the product of two such operands is one of their codes times a power of two. Between
//   2^-100 and 2^100, so that codes times scales are normal numbers of bf16 and fp32.
//   int8: amax / 127.
constexpr float code_scale(DType codes, float amax, int margin = 0) {
  const uint32_t bits = std::bit_cast<uint32_t>(amax);
  if (bits == 0 || bits >= 0x7f800000u) return 0;
  if (codes == DType::i8) return amax < 0x1p-100f ? 0 : amax / 127;
  // Both largest numbers are 1.75 times a power of two.
  const int largest = codes == DType::e4m3 ? 8 : 15;
  const bool above = (bits & 0x7fffffu) > 0x600000u;
  const int exponent = int(bits >> 23) - 127 - largest + int(above) + margin;
  const int bounded = exponent < -100 ? -100 : exponent > 100 ? 100 : exponent;
  return std::bit_cast<float>(uint32_t(bounded + 127) << 23);
}

}  // namespace mixtape
