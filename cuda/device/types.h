// Element types in kernels: to float and back, as core/base/dtype.h defines it, by the device's own instructions.
// They differ from the host in the payload of a NaN alone.
#pragma once

#include "core/base/dtype.h"
#include "cuda/device/cuda.h"

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#endif

namespace mixtape::cuda {

__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(int8_t x) { return float(x); }
#ifdef __CUDACC__
__device__ inline float to_float(fp16 x) { return __half2float(__ushort_as_half(x.code)); }
__device__ inline float to_float(bf16 x) { return __uint_as_float(uint32_t(x.code) << 16); }
__device__ inline float to_float(e4m3 x) { return __half2float(__half(__nv_cvt_fp8_to_halfraw(x.code, __NV_E4M3))); }
__device__ inline float to_float(e5m2 x) { return __half2float(__half(__nv_cvt_fp8_to_halfraw(x.code, __NV_E5M2))); }
#else
template <class T>
requires requires(T x) { x.code; }
float to_float(T x) { return float(x); }
#endif

template <class T>
__device__ inline T from_code(decltype(T{}.code) code) {
  T x;
  x.code = code;
  return x;
}

// Rounded to nearest even; fp8 saturates, int8 is clamped to [-127, 127], and NaN becomes 0 there.
template <class T>
__device__ inline T from_float(float x);
template <>
__device__ inline float from_float<float>(float x) {
  return x;
}
template <>
__device__ inline int8_t from_float<int8_t>(float x) {
  return x != x ? int8_t(0) : int8_t(rintf(fminf(127.f, fmaxf(-127.f, x))));
}
#ifdef __CUDACC__
template <>
__device__ inline fp16 from_float<fp16>(float x) {
  return from_code<fp16>(__half_as_ushort(__float2half_rn(x)));
}
template <>
__device__ inline bf16 from_float<bf16>(float x) {
  return from_code<bf16>(__bfloat16_as_ushort(__float2bfloat16_rn(x)));
}
template <>
__device__ inline e4m3 from_float<e4m3>(float x) {
  return from_code<e4m3>(__nv_cvt_float_to_fp8(x, __NV_SATFINITE, __NV_E4M3));
}
template <>
__device__ inline e5m2 from_float<e5m2>(float x) {
  return from_code<e5m2>(__nv_cvt_float_to_fp8(x, __NV_SATFINITE, __NV_E5M2));
}
#else
template <>
inline fp16 from_float<fp16>(float x) {
  return fp16(x);
}
template <>
inline bf16 from_float<bf16>(float x) {
  return bf16(x);
}
template <>
inline e4m3 from_float<e4m3>(float x) {
  return from_code<e4m3>(e4m3::saturating(x).code);
}
template <>
inline e5m2 from_float<e5m2>(float x) {
  return from_code<e5m2>(e5m2::saturating(x).code);
}
#endif

}  // namespace mixtape::cuda
