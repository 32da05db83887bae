// The activations and their derivatives, in float. The kind is one for a whole launch, so the branch costs nothing
// beside memory.
#pragma once

#include "core/ops/activation.h"
#include "cuda/device/cuda.h"

namespace mixtape::cuda {

// 1 / (1 + exp(-x)): 0 and 1 at the ends, without overflow on the way.
__device__ inline float sigmoid(float x) { return 1.f / (1.f + expf(-x)); }

struct Slope {
  float value, derivative;
};

__device__ inline Slope gelu_slope(float x) {
  const float p = 0.5f * erff(x * 0.707106781f) + 0.5f;
  const float density = 0.398942280f * expf(-0.5f * x * x);
  return {x * p, x * density + p};
}

// x/2 (1 + tanh(u)) is x sigmoid(2u): one exponential, and exact where tanh is near -1.
__device__ inline Slope gelu_tanh_slope(float x) {
  constexpr float linear = 1.59576912f, cubic = 0.0713548162726f;  // 2 sqrt(2/pi), the same times 0.044715
  const float s = sigmoid(x * (x * x * cubic + linear));
  const float z = fminf(16.f, fmaxf(-16.f, x));  // beyond, s (1 - s) is 0 and the square must not be infinite
  return {x * s, z * (s * (1.f - s) * (z * z * (3 * cubic) + linear)) + s};
}

__device__ inline Slope slope_of(Unary kind, float x) {
  switch (kind) {
    case Unary::relu:
      return {x < 0.f ? 0.f : x, x > 0.f ? 1.f : 0.f};  // NaN stays NaN
    case Unary::gelu:
      return gelu_slope(x);
    case Unary::gelu_tanh:
      return gelu_tanh_slope(x);
    case Unary::silu: {
      const float s = sigmoid(x);
      return {x * s, x * s * (1.f - s) + s};
    }
    case Unary::tanh: {
      const float y = tanhf(x);
      return {y, 1.f - y * y};
    }
    case Unary::none:
      break;
  }
  return {x, 1.f};
}
__device__ inline float activate(Unary kind, float x) { return slope_of(kind, x).value; }

}  // namespace mixtape::cuda
