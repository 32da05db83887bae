// mma.sync.m16n8k32: d[16x8] += a[16x32] b[32x8] by a warp, for fp8 operands, each e4m3 or e5m2, and float32 sums
// (sm_89); and for int8 operands and int32 sums, which are exact (sm_80).
//
// Lane = 4 g + t, g in 0..7, t in 0..3; a register holds four elements, the lowest column (k) in its lowest byte.
//
//   register      a0          a1          a2           a3           b0          b1           d0, d1      d2, d3
//   row           g           g + 8       g            g + 8        k = 4t..    k = 4t+16..  g           g + 8
//   column (k)    4t..4t+3    4t..4t+3    4t+16..+19   4t+16..+19   n = g       n = g        2t, 2t+1    2t, 2t+1
#pragma once

#include "cuda/device/mma_m16n8k16.h"

namespace mixtape::cuda {

#ifdef __CUDACC__

#define MIXTAPE_MMA_FP8(types)                                                                                     \
  asm volatile("mma.sync.aligned.m16n8k32.row.col." types " {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};" \
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                                                    \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1))

template <class A, class B>
__device__ inline void mma_m16n8k32(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  constexpr bool wide_a = dtype_of<A> == DType::e5m2, wide_b = dtype_of<B> == DType::e5m2;
  if constexpr (wide_a && wide_b)
    MIXTAPE_MMA_FP8("f32.e5m2.e5m2.f32");
  else if constexpr (wide_a)
    MIXTAPE_MMA_FP8("f32.e5m2.e4m3.f32");
  else if constexpr (wide_b)
    MIXTAPE_MMA_FP8("f32.e4m3.e5m2.f32");
  else
    MIXTAPE_MMA_FP8("f32.e4m3.e4m3.f32");
}

__device__ inline void mma_m16n8k32(int (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

#else

template <class A, class B>
void mma_m16n8k32(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, MIXTAPE_CALLER) {
  MmaOperands<float> mine{d, a, {b0, b1}};
  emulator::warp_meet({"mma_m16n8k32", file, line}, all_lanes, &mine, mma_of_warp<4, decoded<A>, decoded<B>>);
}

inline int signed_byte(uint32_t code) { return int8_t(code); }
inline void mma_m16n8k32(int (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, MIXTAPE_CALLER) {
  MmaOperands<int> mine{d, a, {b0, b1}};
  emulator::warp_meet({"mma_m16n8k32", file, line}, all_lanes, &mine, mma_of_warp<4, signed_byte, signed_byte>);
}

#endif

}  // namespace mixtape::cuda
