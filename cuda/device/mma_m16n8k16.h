// mma.sync.m16n8k16: d[16x8] += a[16x16] b[16x8] by a warp, for fp16 or bf16 operands and float32 sums.
//
// Lane = 4 g + t, g in 0..7, t in 0..3; a register holds two elements, the lower column (k) in its low half.
//
//   register      a0          a1          a2          a3          b0          b1          d0, d1      d2, d3
//   row           g           g + 8       g           g + 8       k = 2t..    k = 2t+8..  g           g + 8
//   column        2t, 2t+1    2t, 2t+1    2t+8, 2t+9  2t+8, 2t+9  n = g       n = g       2t, 2t+1    2t, 2t+1
//
// So two neighbouring results (columns 0-7 and 8-15), rounded in pairs, are the operand a of another product.
#pragma once

#include "cuda/device/types.h"

namespace mixtape::cuda {

// Two values as one register of operands.
template <class T>
__device__ inline uint32_t pack(float low, float high) {
#ifdef __CUDACC__  // one instruction for both
  if constexpr (dtype_of<T> == DType::bf16) {
    const __nv_bfloat162 both = __floats2bfloat162_rn(low, high);
    return uint32_t(__bfloat16_as_ushort(both.y)) << 16 | __bfloat16_as_ushort(both.x);
  } else {
    const __half2 both = __floats2half2_rn(low, high);
    return uint32_t(__half_as_ushort(both.y)) << 16 | __half_as_ushort(both.x);
  }
#else
  return uint32_t(from_float<T>(high).code) << 16 | from_float<T>(low).code;
#endif
}

#ifdef __CUDACC__

template <class T>
__device__ inline void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  if constexpr (dtype_of<T> == DType::bf16)
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  else
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

#else

template <class Sum>
struct MmaOperands {
  Sum* d;
  const uint32_t* a;
  uint32_t b[2];
};

// The m16n8 product of registers that hold `each` elements of 32 / each bits, of which decode_a(code) and
// decode_b(code) give the values: k = 8 each. Sums in the order of k, of the values' type. Tensor cores may align and
// cut products of floating-point numbers otherwise: results agree to float32's accuracy only.
template <int each, auto decode_a, auto decode_b>
void mma_of_warp(const emulator::Lanes& lanes) {
  constexpr int bits = 32 / each;
  using Sum = decltype(decode_a(0u));
  Sum a[16][8 * each], b[8][8 * each];
  const auto code = [](uint32_t all, int i) {
    return uint32_t(uint64_t(all) >> bits * i & ((uint64_t(1) << bits) - 1));
  };
  for (int l = 0; l < warp_size; ++l) {
    const auto& from = lanes.operands<MmaOperands<Sum>>(l);
    for (int r = 0; r < 4; ++r)
      for (int i = 0; i < each; ++i) {
        const int k = each * (l % 4) + 4 * each * (r / 2) + i;
        a[l / 4 + 8 * (r % 2)][k] = decode_a(code(from.a[r], i));
        if (r < 2) b[l / 4][each * (l % 4) + 4 * each * r + i] = decode_b(code(from.b[r], i));
      }
  }
  for (int l = 0; l < warp_size; ++l)
    for (int r = 0; r < 4; ++r) {
      const Sum *x = a[l / 4 + 8 * (r / 2)], *y = b[2 * (l % 4) + r % 2];
      Sum sum = 0;
      for (int k = 0; k < 8 * each; ++k) sum += x[k] * y[k];
      lanes.operands<MmaOperands<Sum>>(l).d[r] += sum;
    }
  emulator::count_mma();
}
template <class T>
float decoded(uint32_t code) {
  return to_float(from_code<T>(decltype(T{}.code)(code)));
}

template <class T>
void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, MIXTAPE_CALLER) {
  MmaOperands<float> mine{d, a, {b0, b1}};
  emulator::warp_meet({"mma_m16n8k16", file, line}, all_lanes, &mine, mma_of_warp<2, decoded<T>, decoded<T>>);
}

#endif

}  // namespace mixtape::cuda
