// The one thread pool of the CPU back end: OpenMP's, which oneDNN and OpenBLAS share.
//
// Kernels cut their work into blocks that depend on shapes alone and reduce block results in a fixed order, so their
// bits do not depend on the number of threads; a thread only decides which blocks it computes.
#pragma once

#include <omp.h>

#include <algorithm>
#include <cstdint>

namespace mixtape {

inline int thread_count() { return omp_get_max_threads(); }
inline void set_thread_count(int threads) { omp_set_num_threads(threads); }

// body(begin, end) over [0, n) in contiguous parts of at least `grain`, one a thread. Runs in the caller's thread when
// there is too little work, and inside another parallel region.
template <class Body>
void parallel_for(int64_t n, int64_t grain, Body&& body) {
  if (n <= 0) return;
  const int64_t parts = std::min<int64_t>(thread_count(), (n + grain - 1) / std::max<int64_t>(grain, 1));
  if (parts <= 1 || omp_in_parallel()) return body(int64_t(0), n);
#pragma omp parallel num_threads(int(parts))
  {
    const int64_t part = omp_get_thread_num();
    const int64_t begin = n * part / parts, end = n * (part + 1) / parts;
    if (begin < end) body(begin, end);
  }
}

// body(i) for tasks of uneven cost: threads take the next one when they are free. Which thread runs a task must not
// matter to its result.
template <class Body>
void parallel_tasks(int64_t n, Body&& body) {
  if (n <= 0) return;
  if (n == 1 || thread_count() == 1 || omp_in_parallel()) {
    for (int64_t i = 0; i < n; ++i) body(i);
    return;
  }
#pragma omp parallel for schedule(dynamic, 1)
  for (int64_t i = 0; i < n; ++i) body(i);
}

}  // namespace mixtape
