// The largest magnitude of a tensor: blocks leave what they have met in parts, and one block compares these.
#pragma once

#include "cuda/launch.h"

namespace mixtape::cuda {

constexpr int amax_threads = 256;
constexpr int64_t amax_blocks = 1024;

// As integers magnitudes are ordered like the numbers, with NaN above infinity. The largest of a block's threads.
__device__ inline int block_largest(int most) {
  struct Storage {
    int warps[amax_threads / warp_size];
  };
  Storage& s = shared_memory<Storage>();
  for (int d = warp_size / 2; d > 0; d /= 2) most = std::max(most, __shfl_xor_sync(all_lanes, most, d));
  if (lane_id() == 0) s.warps[warp_id()] = most;
  __syncthreads();
  for (int i = 0; i < amax_threads / warp_size; ++i) most = std::max(most, s.warps[i]);
  return most;
}

__device__ inline int magnitude_bits(float x) {
  const float magnitude = fabsf(x);
  int bits;
  memcpy(&bits, &magnitude, sizeof bits);
  return bits;
}

constexpr size_t amax_shared = sizeof(int) * amax_threads / warp_size;

inline int64_t amax_blocks_for(int64_t count) {
  return std::clamp<int64_t>(divide_up(count, 16 * amax_threads), 1, amax_blocks);
}

}  // namespace mixtape::cuda
