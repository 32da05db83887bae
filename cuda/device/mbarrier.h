// mbarrier: a barrier in shared memory that counts arrivals of threads and bytes of bulk copies.
//
// It goes through phases. One ends when as many arrivals have come as init() says, and as many bytes as they announced;
// what happened before an arrival, and what the copies brought, is visible to whoever waited for the phase. The parity
// of the first phase is 0; waiting for parity 1 of a fresh barrier returns at once, as if a phase before had ended.
// A waiting thread must take part in what ends the next phase, else that one may pass it by too.
// In the emulator a waiting thread is suspended; nothing spins.
#pragma once

#include <cstdint>

#include "cuda/device/cuda.h"
#ifndef __CUDACC__
#include "cuda/emulator/async.h"
#endif

namespace mixtape::cuda {

struct alignas(8) Mbarrier {
  uint64_t state;  // the hardware's own
};

#ifdef __CUDACC__

__device__ inline uint32_t shared_address(const void* p) { return static_cast<uint32_t>(__cvta_generic_to_shared(p)); }

__device__ inline void init(Mbarrier& b, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(&b)), "r"(arrivals) : "memory");
}
// After the initialisation, before a barrier of the block: bulk copies see it too.
__device__ inline void fence_of_init() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
__device__ inline void arrive(Mbarrier& b) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(&b)) : "memory");
}
// Arrives and announces bytes.
__device__ inline void arrive_expecting(Mbarrier& b, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(&b)), "r"(bytes)
               : "memory");
}
// Until the phase of this parity has ended.
__device__ inline void wait(Mbarrier& b, unsigned parity) {
  uint32_t done;
  do {
    asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
                 : "=r"(done)
                 : "r"(shared_address(&b)), "r"(parity)
                 : "memory");
  } while (!done);
}
// What this thread has stored to shared memory is there for bulk copies and wgmma that are ordered after it.
__device__ inline void fence_for_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

#else

inline void init(Mbarrier& b, int arrivals) { emulator::init_mbarrier(&b, arrivals); }
inline void fence_of_init() {}
inline void arrive(Mbarrier& b, MIXTAPE_CALLER) { emulator::arrive({"mbarrier arrive", file, line}, &b, 0); }
inline void arrive_expecting(Mbarrier& b, int bytes, MIXTAPE_CALLER) {
  emulator::arrive({"mbarrier arrive", file, line}, &b, bytes);
}
inline void wait(Mbarrier& b, unsigned parity, MIXTAPE_CALLER) {
  emulator::wait_for_phase({"mbarrier wait", file, line}, &b, parity);
}
inline void fence_for_async() {}

#endif

}  // namespace mixtape::cuda
