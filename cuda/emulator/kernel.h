// The words of CUDA C++ that a kernel uses, for the host's compiler. Included by cuda/device/cuda.h; nvcc has its own.
#pragma once
#ifdef __CUDACC__
#error "the emulator is for the host's compiler; nvcc needs none"
#endif

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "cuda/emulator/threads.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __grid_constant__
#define __launch_bounds__(...)

#define threadIdx (::mixtape::emulator::self->index)
#define blockIdx (::mixtape::emulator::block->index)
#define blockDim (::mixtape::emulator::block->threads)
#define gridDim (::mixtape::emulator::block->grid)

// Default arguments are evaluated where the call stands, so that messages name a line of the kernel.
#define MIXTAPE_CALLER const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(MIXTAPE_CALLER) { mixtape::emulator::block_barrier({"__syncthreads", file, line}); }
inline void __syncwarp(unsigned mask = ~0u, MIXTAPE_CALLER) {
  mixtape::emulator::warp_barrier({"__syncwarp", file, line}, mask);
}

namespace mixtape::emulator {

template <class T>
struct Shuffle {
  T in, out;
  int source;
};

// Each lane reads `in` of the lane `source`, which must take part.
template <class T>
T shuffle(T value, unsigned mask, int source, const Place& place) {
  static_assert(std::is_trivially_copyable_v<T> && (sizeof(T) == 4 || sizeof(T) == 8));
  Shuffle<T> mine{value, value, source};
  warp_meet(place, mask, &mine, [](const Lanes& lanes) {
    for (int i = 0; i < warp_size; ++i) {
      if (!lanes.has(i)) continue;
      const int from = lanes.operands<Shuffle<T>>(i).source & 31;
      if (!lanes.has(from)) fail(lanes.place.text() + ": reads a lane that is not in the mask");
      lanes.operands<Shuffle<T>>(i).out = lanes.operands<Shuffle<T>>(from).in;
    }
  });
  return mine.out;
}

struct Vote {
  int in, out;
};

// Whether `in` is true of any lane.
inline int any_of(int in, unsigned mask, const Place& place) {
  Vote mine{in, 0};
  warp_meet(place, mask, &mine, [](const Lanes& lanes) {
    int any = 0;
    for (int i = 0; i < warp_size; ++i)
      if (lanes.has(i)) any |= lanes.operands<Vote>(i).in != 0;
    for (int i = 0; i < warp_size; ++i)
      if (lanes.has(i)) lanes.operands<Vote>(i).out = any;
  });
  return mine.out;
}

}  // namespace mixtape::emulator

template <class T>
T __shfl_sync(unsigned mask, T value, int source, MIXTAPE_CALLER) {
  return mixtape::emulator::shuffle(value, mask, source, {"__shfl_sync", file, line});
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, MIXTAPE_CALLER) {
  return mixtape::emulator::shuffle(value, mask, mixtape::emulator::self->lane ^ bits, {"__shfl_xor_sync", file, line});
}
// Lanes below `distance` keep their own value.
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned distance, MIXTAPE_CALLER) {
  const int lane = mixtape::emulator::self->lane;
  return mixtape::emulator::shuffle(value, mask, lane < int(distance) ? lane : lane - int(distance),
                                    {"__shfl_up_sync", file, line});
}

inline int __any_sync(unsigned mask, int predicate, MIXTAPE_CALLER) {
  return mixtape::emulator::any_of(predicate, mask, {"__any_sync", file, line});
}

// c and the four products of signed bytes.
inline int __dp4a(int a, int b, int c) {
  for (int i = 0; i < 32; i += 8) c += int(int8_t(a >> i)) * int(int8_t(b >> i));
  return c;
}

inline float rsqrtf(float x) { return 1.f / std::sqrt(x); }
