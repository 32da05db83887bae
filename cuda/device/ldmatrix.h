// ldmatrix.x4: four 8x8 matrices of 16-bit elements from shared memory into the registers of a warp.
//
// Lane l gives the address of row l % 8 of matrix l / 8: 16 bytes, aligned to 16. Register i of lane 4 g + t gets
// elements (g, 2t) and (g, 2t + 1) of matrix i; transposed (2t, g) and (2t + 1, g). Which addresses make operands of
// mma_m16n8k16 (l is the lane):
//
//   operand                          stored     row address of lane l                        gives
//   a, 16x16 at (m0, k0)             [m][k]     m0 + l%16, k0 + 8 (l/16)                     a0..a3
//   b of n0 and of n0 + 8, 16 k      [n][k]     n0 + l%8 + 8 (l/16), k0 + 8 (l/8 % 2)        b0, b1 of n0; of n0 + 8
//   the same, transposed             [k][n]     k0 + l%16, n0 + 8 (l/16)                     the same
#pragma once

#include "cuda/device/types.h"

namespace mixtape::cuda {

#ifdef __CUDACC__

template <bool transposed, class T>
__device__ inline void ldmatrix(uint32_t (&out)[4], const T* row) {
  const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  if constexpr (transposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(address)
                 : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(address)
                 : "memory");
}

#else

struct LdmatrixOperands {
  uint16_t row[8];
  uint32_t* out;
};

template <bool transposed>
void ldmatrix_of_warp(const emulator::Lanes& lanes) {
  const auto element = [&](int matrix, int row, int col) -> uint32_t {
    return lanes.operands<LdmatrixOperands>(8 * matrix + row).row[col];
  };
  for (int l = 0; l < warp_size; ++l)
    for (int i = 0; i < 4; ++i) {
      const int g = l / 4, t = l % 4;
      lanes.operands<LdmatrixOperands>(l).out[i] = transposed ? element(i, 2 * t + 1, g) << 16 | element(i, 2 * t, g)
                                                              : element(i, g, 2 * t + 1) << 16 | element(i, g, 2 * t);
    }
}

// Each lane reads its own row, so that a report of a race or of an unwaited copy names it.
template <bool transposed, class T>
void ldmatrix(uint32_t (&out)[4], const T* row, MIXTAPE_CALLER) {
  emulator::expect_shared(row, 16, 16, "ldmatrix");
  LdmatrixOperands mine{{}, out};
  for (int i = 0; i < 8; ++i) mine.row[i] = row[i].code;
  emulator::warp_meet({"ldmatrix", file, line}, all_lanes, &mine, ldmatrix_of_warp<transposed>);
}

#endif

}  // namespace mixtape::cuda
