// mma.sync.m16n8k8: d[16x8] += a[16x8] b[8x8] by a warp, for tf32 operands and float32 sums.
//
// tf32 is a float32 of which the hardware ignores the lower 13 bits; to_tf32 rounds instead of cutting.
// Lane = 4 g + t, g in 0..7, t in 0..3:
//
//   register      a0       a1       a2       a3       b0       b1       d0, d1      d2, d3
//   row           g        g + 8    g        g + 8    k = t    k = t+4  g           g + 8
//   column (k)    t        t        t + 4    t + 4    n = g    n = g    2t, 2t+1    2t, 2t+1
#pragma once

#include "cuda/device/mma_m16n8k16.h"

namespace mixtape::cuda {

#ifdef __CUDACC__

// To nearest, ties away from zero.
__device__ inline uint32_t to_tf32(float x) {
  uint32_t code;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(code) : "f"(x));
  return code;
}
__device__ inline void mma_m16n8k8_tf32(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

#else

inline uint32_t to_tf32(float x) {
  uint32_t code;
  std::memcpy(&code, &x, 4);
  const bool finite = (code >> 23 & 255) != 255;
  return finite ? (code + 0x1000u) & ~0x1fffu : code;
}
inline float tf32_value(uint32_t code) {
  code &= ~0x1fffu;
  float x;
  std::memcpy(&x, &code, 4);
  return x;
}
inline void mma_m16n8k8_tf32(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, MIXTAPE_CALLER) {
  MmaOperands<float> mine{d, a, {b0, b1}};
  emulator::warp_meet({"mma_m16n8k8_tf32", file, line}, all_lanes, &mine, mma_of_warp<1, tf32_value, tf32_value>);
}

#endif

}  // namespace mixtape::cuda
