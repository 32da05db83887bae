// How the optimizer's state is stored: masters and moments in fewer bits than float32, and what the bits mean.
//
// A moment is an average that changes by a small part of itself in a step: by 1/1000 with a beta of 0.999, while bf16's
// numbers are 1/128 to 1/256 of themselves apart, and codes of 8 bits further. Rounded to nearest it would stay where
// it is, a second moment that should fall as much as one that should rise. So every format narrower than float32 rounds
// by chance (core/ops/stochastic_rounding.h): to the number below or above, with the probability that makes the mean
// right.
#pragma once

#include <bit>

#include "core/base/dtype.h"
#include "core/tensor.h"

namespace mixtape {

// Beside weights of 16 bits: nothing, float32 copies that the update reads and writes, or the 16 bits that complete a
// bf16 weight to a float32.
enum class MasterWeights { fp32, remainder16, none };

// The formats of moments. Of 8 bits: codes c with a float32 scale s for each block of 256 elements, which is cut by the
// place in the flat buffer, so that neither ranks nor threads change it. s follows from the block's largest magnitude,
// which has the largest code.
//
//         first moment m               second moment v
//   fp32  the number                   the number
//   bf16  the number                   the number
//   int8  s c |c|, c from -127 to 127  s c^4, c from 0 to 255
//   fp8   s c, c in e4m3               s c, c in e5m2
//
// int8: the update divides m by sqrt(v), and both are stored by their square root, which makes numbers near 0 closer to
// each other: a linear code has none below 1/127 of the block's largest, and within a block moments differ by more than
// that. Dettmers et al., 8-bit optimizers, arXiv 2110.02861, have a table of codes for the same reason; a root costs
// less than a search in a table, and its error is no larger (tests/ops/moments_test.cpp measures it).
//
// A second moment above 0 is never stored as 0, the least code is its least: else m / sqrt(v) would be m / eps.
enum class MomentFormat { fp32, bf16, int8, fp8 };
inline constexpr int64_t moment_block = 256;

constexpr DType first_moment_type(MomentFormat format) {
  constexpr DType types[] = {DType::f32, DType::bf16, DType::i8, DType::e4m3};
  return types[int(format)];
}
constexpr DType second_moment_type(MomentFormat format) {
  constexpr DType types[] = {DType::f32, DType::bf16, DType::u8, DType::e5m2};
  return types[int(format)];
}

// A moment of every element of a flat buffer.
struct Moment {
  Tensor values;  // flat: numbers or codes
  Tensor scales;  // float32, one a block; of codes alone

  Moment() = default;
  Moment(Tensor v, Tensor s = {}) : values(std::move(v)), scales(std::move(s)) {}  // NOLINT: numbers are a moment
  explicit operator bool() const { return bool(values); }
  bool blocks() const { return size_of(values.dtype()) == 1; }
  // Elements [begin, begin + count); begin: where a block begins.
  Moment part(int64_t begin, int64_t count) const {
    const auto cut = [](const Tensor& t, int64_t at, int64_t n) {
      return Tensor(t.raw() ? t.raw() + at * size_of(t.dtype()) : nullptr, {n}, t.dtype());
    };
    if (!values) return {};
    if (!blocks()) return cut(values, begin, count);
    if (begin % moment_block != 0) throw Error("moments: a part begins at element {}, inside of a block", begin);
    return {cut(values, begin, count), cut(scales, begin / moment_block, blocks_of(count))};
  }
  static constexpr int64_t blocks_of(int64_t count) { return (count + moment_block - 1) / moment_block; }
};

// A weight of 16 bits as the copy of its master: to nearest. Of bf16 ties go away from 0, not to even: then 16 bits
// tell which of the 65,536 masters of a weight it was, and a run with remainders has the bits of one with float32
// masters.
template <class T>
constexpr T rounded_weight(float master) {
  return T(master);
}
template <>
constexpr bf16 rounded_weight<bf16>(float master) {
  const uint32_t bits = std::bit_cast<uint32_t>(master);
  bf16 weight(master);
  if ((bits & 0x7fffffffu) <= 0x7f800000u) weight.code = uint16_t((bits + 0x8000u) >> 16);
  return weight;
}
// master = weight + remainder units of its own last place.
constexpr uint16_t remainder_of(float master) { return uint16_t(std::bit_cast<uint32_t>(master)); }
constexpr float master_of(bf16 weight, uint16_t remainder) {
  return std::bit_cast<float>((uint32_t(weight.code) << 16) + uint32_t(int32_t(int16_t(remainder))));
}

}  // namespace mixtape
