// setmaxnreg: a warpgroup gives registers of its threads back to the block's pool, or takes some. All of its threads
// call it, and the pool, which the launch fills with as many a thread as the kernel was compiled for, must have them.
// The emulator's threads have all the registers they want.
#pragma once

#include "cuda/device/cuda.h"

namespace mixtape::cuda {

template <int registers>
__device__ inline void give_registers_down_to() {
  static_assert(registers >= 24 && registers <= 256 && registers % 8 == 0);
#ifdef __CUDACC__
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(registers));
#endif
}
template <int registers>
__device__ inline void take_registers_up_to() {
  static_assert(registers >= 24 && registers <= 256 && registers % 8 == 0);
#ifdef __CUDACC__
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(registers));
#endif
}

}  // namespace mixtape::cuda
