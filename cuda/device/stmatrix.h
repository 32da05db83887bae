// stmatrix.x4 (sm_90): four 8x8 matrices of 16-bit elements from the registers of a warp into shared memory.
//
// The reverse of ldmatrix: lane l gives the address of row l % 8 of matrix l / 8, 16 bytes, aligned to 16. Register i
// of lane 4 g + t has elements (g, 2t) and (g, 2t + 1) of matrix i; transposed (2t, g) and (2t + 1, g). So sums of a
// product, rounded in pairs, become rows: matrices {rows 0-7, rows 8-15} x {columns n.., n + 8..} are a's registers.
#pragma once

#include "cuda/device/types.h"

namespace mixtape::cuda {

#ifdef __CUDACC__

template <bool transposed, class T>
__device__ inline void stmatrix(T* row, const uint32_t (&in)[4]) {
  const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  if constexpr (transposed)
    asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1,%2,%3,%4};" ::"r"(address), "r"(in[0]),
                 "r"(in[1]), "r"(in[2]), "r"(in[3])
                 : "memory");
  else
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1,%2,%3,%4};" ::"r"(address), "r"(in[0]), "r"(in[1]),
                 "r"(in[2]), "r"(in[3])
                 : "memory");
}

#else

struct StmatrixOperands {
  const uint32_t* in;
  uint16_t row[8];
};

template <bool transposed>
void stmatrix_of_warp(const emulator::Lanes& lanes) {
  for (int l = 0; l < warp_size; ++l)
    for (int i = 0; i < 4; ++i)
      for (int half = 0; half < 2; ++half) {
        const int g = l / 4, k = l % 4 * 2 + half;
        const uint16_t code = uint16_t(lanes.operands<StmatrixOperands>(l).in[i] >> 16 * half);
        lanes.operands<StmatrixOperands>(8 * i + (transposed ? k : g)).row[transposed ? g : k] = code;
      }
}

// Each lane stores its own row, so that a report of a race names it.
template <bool transposed, class T>
void stmatrix(T* row, const uint32_t (&in)[4], MIXTAPE_CALLER) {
  emulator::expect_shared(row, 16, 16, "stmatrix");
  StmatrixOperands mine{in, {}};
  emulator::warp_meet({"stmatrix", file, line}, all_lanes, &mine, stmatrix_of_warp<transposed>);
  for (int i = 0; i < 8; ++i) row[i] = from_code<T>(mine.row[i]);
}

#endif

}  // namespace mixtape::cuda
