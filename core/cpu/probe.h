// What this machine can do at best, measured in milliseconds: the limits that benchmarks are compared with.
//
// Kernels never run these; `mixtape bench` does, in the same run as what it compares, since a shared machine changes
// from minute to minute.
#pragma once

#include <cstdint>

namespace mixtape {

// Multiplications and additions in float32, in FLOP/s, while every thread of the pool runs independent fused
// multiply-adds on registers for `seconds`. It also serves to keep all cores busy.
double fma_rate(double seconds = 0.008);
// The same on the calling thread alone.
double fma_rate_one_thread(double seconds = 0.008);

// Bytes a second over a buffer that no cache holds, all threads. Copying counts bytes read and bytes written, with
// stores that bypass the caches.
struct MemoryRates {
  double read = 0, copy = 0;
};
MemoryRates memory_rates();

// Writes these bytes back and drops them from all caches, so that they are read from memory next. Works on x86;
// elsewhere they stay.
void drop_from_caches(const void* data, int64_t bytes);

}  // namespace mixtape
