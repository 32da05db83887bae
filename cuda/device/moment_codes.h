// The codes of 8-bit moments (core/ops/optimizer_state.h), one at a time. `top` is what the largest code stands for;
// encode takes |x| up to it and 16 evenly distributed bits.
#pragma once

#include "core/ops/stochastic_rounding.h"
#include "cuda/device/types.h"

namespace mixtape::cuda {

// c |c| / 127^2
struct SignedSquare {
  using Code = int8_t;
  static constexpr float top = 1;
  __device__ static float decode(Code c) { return float(c) * fabsf(float(c)) * (1.f / (127 * 127)); }
  __device__ static Code encode(float x, uint32_t random) {
    const float square = fabsf(x) * (127 * 127), low = fminf(floorf(sqrtf(square)), 126), high = low + 1;
    const float c = goes_up(square, low * low, high * high, random) ? high : low;
    return Code(x < 0 ? -c : c);
  }
};

// (c / 255)^4, 1 at least above 0
struct FourthPower {
  using Code = uint8_t;
  static constexpr float top = 1;
  __device__ static float decode(Code c) { return power(float(c)); }
  __device__ static Code encode(float x, uint32_t random) {
    if (!(x > 0)) return 0;
    const float low = fminf(floorf(sqrtf(sqrtf(x)) * 255), 254), high = low + 1;
    return Code(low < 1 || goes_up(x, power(low), power(high), random) ? high : low);
  }
  __device__ static float power(float c) {
    const float q = c * (1.f / 255), square = q * q;
    return square * square;
  }
};

// Of a second moment: what is above 0 has a code above 0.
template <class E, bool above_zero>
struct Float8 {
  using Code = E;
  static constexpr float top = float(E::from_code(E::largest_code));
  __device__ static float decode(Code c) { return to_float(c); }
  __device__ static Code encode(float x, uint32_t random) {
    Code c = round_stochastically<E>(x, random);
    if (above_zero && x > 0 && c.code == 0) c.code = 1;
    return c;
  }
};

}  // namespace mixtape::cuda
