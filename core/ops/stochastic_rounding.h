// Rounding by chance: to the neighbour below or above, above with the probability that makes the mean right.
//
// An update smaller than half of a weight's last place is lost by rounding to nearest, every time; here it changes the
// weight now and then, by a whole place. So weights of 16 bits can learn without a float32 copy.
#pragma once

#include <array>
#include <bit>

#include "core/base/dtype.h"
#include "core/base/philox.h"

namespace mixtape {

// The numbers of element e of a parameter: 16 bits, of philox(key, e / 8, parameter, Purpose::rounding) the word
// e % 8 / 2, of an even element the lower half. So no bit depends on where in a buffer, on which rank or by how many
// threads a weight is updated.
inline constexpr int64_t roundings_a_draw = 8;
constexpr PhiloxKey rounding_key(uint64_t seed, uint64_t attempt) { return philox_key(seed, attempt); }
constexpr std::array<uint32_t, 4> rounding_draw(PhiloxKey key, uint32_t parameter, uint64_t element) {
  return philox(key, element / roundings_a_draw, parameter, Purpose::rounding);
}
// Of element e's moments: of philox(key, e / 4, parameter, Purpose::moments) the word e % 4, whose lower half is the
// first moment's and whose upper half the second's.
inline constexpr int64_t moments_a_draw = 4;
constexpr std::array<uint32_t, 4> moments_draw(PhiloxKey key, uint32_t parameter, uint64_t element) {
  return philox(key, element / moments_a_draw, parameter, Purpose::moments);
}
constexpr uint32_t rounding_bits(uint32_t word, uint64_t element) { return word >> (16 * (element % 2)) & 0xffff; }
constexpr uint32_t rounding_bits(const std::array<uint32_t, 4>& draw, uint64_t element) {
  // Not by an index, which would put the words into memory on a GPU.
  const uint64_t pair = element % roundings_a_draw / 2;
  return rounding_bits(pair < 2 ? (pair == 0 ? draw[0] : draw[1]) : (pair == 2 ? draw[2] : draw[3]), element);
}

// Whether x, between the neighbours `low` and `high`, becomes the upper one, which it does with the probability
// (x - low) / (high - low). `random`: 16 evenly distributed bits.
constexpr bool goes_up(float x, float low, float high, uint32_t random) {
  return float(random) * (high - low) + 65536.f * (x - low) >= 65536.f * (high - low);
}

// x in fp16 or bf16, or up to its largest number in an 8-bit float. `random`: 16 evenly distributed bits. The mean over
// them is x, but among fp16's subnormals, where it is within 2^-16 of their distance below x. What no finite number
// lies above is rounded to nearest.
template <class T>
constexpr T round_stochastically(float x, uint32_t random) {
  using Code = decltype(T{}.code);
  constexpr uint32_t largest = std::bit_cast<uint32_t>(float(T::from_code(T::largest_code)));
  const uint32_t bits = std::bit_cast<uint32_t>(x), magnitude = bits & 0x7fffffffu;
  T result;
  result.code = bits >> 31 ? T::sign_mask : Code(0);
  const int exponent = int(magnitude >> 23);
  // How many low bits T cannot hold; among its subnormals more.
  int drop = 23 - T::mantissa_bits, target = (exponent == 0 ? 1 : exponent) - 127 + T::bias;
  if (target < 1) drop += 1 - target, target = 1;
  if (magnitude > 0x7f800000u) {
    result.code |= T::nan_code;
  } else if (magnitude >= largest) {  // a tie goes to infinity, as the largest number is odd
    const bool over = magnitude - largest >= uint32_t(1) << (22 - T::mantissa_bits);
    result.code |= over ? T::infinity_code : T::largest_code;
  } else if (drop < 40) {  // else below 2^-16 of the least subnormal
    const uint64_t significand = exponent == 0 ? magnitude & 0x7fffffu : (magnitude & 0x7fffffu) | 0x800000u;
    const uint64_t carry = drop >= 16 ? uint64_t(random) << (drop - 16) : random >> (16 - drop);
    // A carry out of the mantissa moves into the exponent by itself.
    result.code |= Code(((significand + carry) >> drop) + (uint64_t(target - 1) << T::mantissa_bits));
  }
  return result;
}

}  // namespace mixtape
