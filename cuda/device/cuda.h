// The language of kernels: CUDA's own, or the emulator's words for it. The one place that tells them apart, together
// with the headers beside it that wrap an instruction.
#pragma once

#ifdef __CUDACC__
#include <cuda_runtime.h>
#define MIXTAPE_CALLER int = 0  // on the GPU there is no caller to name
#else
#include "cuda/emulator/kernel.h"
#endif

namespace mixtape::cuda {

// Whether the code that is compiled here may use the instructions of sm_90a, which no later GPU has: wgmma, setmaxnreg.
// A kernel of them is empty elsewhere, and launchers ask for the device's compute capability.
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
constexpr bool has_warpgroups = true;
#else
constexpr bool has_warpgroups = false;
#endif

// Likewise for those that every GPU has from sm_89 on, products of fp8; and from sm_90 on: mbarrier, bulk copies of
// boxes, stmatrix.
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 890
constexpr bool has_fp8_products = true;
#else
constexpr bool has_fp8_products = false;
#endif
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
constexpr bool has_bulk_copies = true;
#else
constexpr bool has_bulk_copies = false;
#endif

constexpr int warp_size = 32;
constexpr unsigned all_lanes = 0xffffffffu;

__device__ inline int lane_id() { return int(threadIdx.x) % warp_size; }
__device__ inline int warp_id() { return int(threadIdx.x) / warp_size; }

// The block's shared memory as one struct, of which the launch gives the size. Kernels have no other.
template <class T>
__device__ T& shared_memory() {
#ifdef __CUDACC__
  extern __shared__ __align__(1024) unsigned char raw[];
  return *reinterpret_cast<T*>(raw);
#else
  return *static_cast<T*>(emulator::shared_memory(sizeof(T)));
#endif
}
// The same where the size is known at run time only: `count` elements.
template <class T>
__device__ T* shared_array([[maybe_unused]] int64_t count) {
#ifdef __CUDACC__
  extern __shared__ __align__(1024) unsigned char raw[];
  return reinterpret_cast<T*>(raw);
#else
  return static_cast<T*>(emulator::shared_memory(size_t(count) * sizeof(T)));
#endif
}

// What a caller must have made true. On the GPU a violation ends the kernel and with it the run: memory is never
// touched out of bounds. The emulator says what was violated.
__device__ inline void require(bool holds, [[maybe_unused]] const char* what) {
#ifdef __CUDACC__
  if (!holds) __trap();
#else
  if (!holds) emulator::fail(what);
#endif
}

}  // namespace mixtape::cuda
