// cp.async: copies of 16 bytes from global to shared memory that go on while the thread does.
//
// Of the 16 bytes the first `valid` are read, the others become zeros. A thread's copies since its last commit form a
// group; waiting for all but the newest n groups makes what they brought visible to this thread, and a barrier after
// that to others. In the emulator the target is poison until the wait, as late as the hardware may be.
#pragma once

#include "cuda/device/cuda.h"

namespace mixtape::cuda {

#ifdef __CUDACC__

__device__ inline void copy_async(void* to, const void* from, int valid = 16) {
  const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(from), "r"(valid) : "memory");
}
__device__ inline void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int groups_in_flight>
__device__ inline void copy_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(groups_in_flight) : "memory");
}

#else

inline void copy_async(void* to, const void* from, int valid = 16) {
  if (reinterpret_cast<uintptr_t>(from) % 16)
    emulator::fail("cp.async: reads from an address that is no multiple of 16");
  if (valid < 0 || valid > 16) emulator::fail("cp.async: neither 0 nor 16 bytes nor between");
  emulator::expect_shared(to, 16, 16, "cp.async");
  emulator::start_copy({to, from, 16, unsigned(valid)});
}
inline void copy_async_commit() { emulator::commit_copies(); }
template <int groups_in_flight>
void copy_async_wait() {
  emulator::wait_for_copies(groups_in_flight);
}

#endif

}  // namespace mixtape::cuda
