// Sums and maxima over a warp and over a block, in an order that is fixed: the same bits every time.
#pragma once

#include "cuda/device/cuda.h"

namespace mixtape::cuda {

// Of all 32 lanes, given to each of them.
template <class T>
__device__ inline T warp_sum(T x) {
#pragma unroll
  for (int d = warp_size / 2; d > 0; d /= 2) x += __shfl_xor_sync(all_lanes, x, d);
  return x;
}
__device__ inline float warp_max(float x) {
#pragma unroll
  for (int d = warp_size / 2; d > 0; d /= 2) x = fmaxf(x, __shfl_xor_sync(all_lanes, x, d));
  return x;
}

// Of all threads of a block of whole warps, given to each of them. `scratch`: 32 elements of shared memory, free again
// when all have returned. Two barriers.
template <class T>
__device__ inline T block_sum(T x, T* scratch) {
  const int warps = int(blockDim.x) / warp_size;
  x = warp_sum(x);
  if (lane_id() == 0) scratch[warp_id()] = x;
  __syncthreads();
  x = warp_sum(lane_id() < warps ? scratch[lane_id()] : T(0));
  __syncthreads();
  return x;
}
__device__ inline float block_max(float x, float* scratch) {
  const int warps = int(blockDim.x) / warp_size;
  x = warp_max(x);
  if (lane_id() == 0) scratch[warp_id()] = x;
  __syncthreads();
  x = warp_max(lane_id() < warps ? scratch[lane_id()] : scratch[0]);
  __syncthreads();
  return x;
}

// Two sums at once, with one barrier: `scratch` must not be the one of the call before, whose sums other threads may
// still read.
__device__ inline void block_sums(float& a, float& b, float (&scratch)[2][warp_size]) {
  const int warps = int(blockDim.x) / warp_size;
  a = warp_sum(a), b = warp_sum(b);
  if (lane_id() == 0) scratch[0][warp_id()] = a, scratch[1][warp_id()] = b;
  __syncthreads();
  a = warp_sum(lane_id() < warps ? scratch[0][lane_id()] : 0.f);
  b = warp_sum(lane_id() < warps ? scratch[1][lane_id()] : 0.f);
}

// The sum of all threads before this one; `total` becomes the sum of all. Scratch and barriers as above.
__device__ inline int block_exclusive_sum(int x, int* scratch, int& total) {
  const int warps = int(blockDim.x) / warp_size;
  int sum = x;
#pragma unroll
  for (int d = 1; d < warp_size; d *= 2) {
    const int before = __shfl_up_sync(all_lanes, sum, unsigned(d));
    if (lane_id() >= d) sum += before;
  }
  if (lane_id() == warp_size - 1) scratch[warp_id()] = sum;
  __syncthreads();
  int before_warp = 0, all = 0;
  for (int w = 0; w < warps; ++w) {
    if (w == warp_id()) before_warp = all;
    all += scratch[w];
  }
  __syncthreads();
  total = all;
  return before_warp + sum - x;
}

}  // namespace mixtape::cuda
