// A stable sort of small integers on the device: what makes sums over equal ids deterministic.
//
// Radix sort, 8 bits a pass from the lowest. In a pass each tile of 256 elements counts its digits, one block turns the
// counts of all digits and tiles into places, and each tile moves its elements there; equal digits keep their order.
// No atomics. Moves 32 bytes an element and pass: two passes for a vocabulary of 65 thousand.
#pragma once

#include "core/backend.h"
#include "cuda/device/reduce.h"
#include "cuda/launch.h"

namespace mixtape::cuda {
namespace {

constexpr int sort_tile = 256, digits = 256, scan_threads = 1024;

struct SortStorage {
  int digit[sort_tile];
};

// counts[digit, tile]. Thread d counts the digit d, so there is nothing to add up.
__global__ void __launch_bounds__(sort_tile) count_digits_kernel(int* counts, const int* keys, int64_t n, int shift) {
  SortStorage& s = shared_memory<SortStorage>();
  const int64_t i = int64_t(blockIdx.x) * sort_tile + threadIdx.x;
  s.digit[threadIdx.x] = i < n ? keys[i] >> shift & (digits - 1) : -1;
  __syncthreads();
  int count = 0;
  for (int j = 0; j < sort_tile; ++j) count += s.digit[j] == int(threadIdx.x);
  counts[int64_t(threadIdx.x) * gridDim.x + blockIdx.x] = count;
}

// Replaces each count by the sum of those before it. One block.
__global__ void __launch_bounds__(scan_threads) exclusive_sum_kernel(int* counts, int64_t n) {
  struct Storage {
    int warps[warp_size];
  };
  Storage& s = shared_memory<Storage>();
  int before = 0;
  for (int64_t first = 0; first < n; first += scan_threads) {
    const int64_t i = first + threadIdx.x;
    int total;
    const int sum = block_exclusive_sum(i < n ? counts[i] : 0, s.warps, total);
    if (i < n) counts[i] = before + sum;
    before += total;
  }
}

__global__ void __launch_bounds__(sort_tile) place_kernel(int* keys_to, int* values_to, const int* keys,
                                                          const int* values, const int* places, int64_t n, int shift) {
  SortStorage& s = shared_memory<SortStorage>();
  const int64_t i = int64_t(blockIdx.x) * sort_tile + threadIdx.x;
  const int digit = i < n ? keys[i] >> shift & (digits - 1) : -1;
  s.digit[threadIdx.x] = digit;
  __syncthreads();
  if (i >= n) return;
  int rank = 0;
  for (int j = 0; j < int(threadIdx.x); ++j) rank += s.digit[j] == digit;
  const int place = places[int64_t(digit) * gridDim.x + blockIdx.x] + rank;
  keys_to[place] = keys[i];
  values_to[place] = values[i];
}

}  // namespace

// Sorts (key, value) pairs by key; keys in [0, most_key]. `memory` is int32 [sort_ints(n)]; on return keys() and
// values() are the sorted pairs in it.
class Sort {
 public:
  explicit Sort(int64_t n) : n_(n), tiles_(std::max<int64_t>(1, divide_up(n, sort_tile))) {}
  int64_t ints() const { return 4 * n_ + digits * tiles_; }
  void bind(const Tensor& memory) {
    memory_ = memory.data<int32_t>();
    current_ = 0;
  }
  int* keys() const { return memory_ + current_ * 2 * n_; }
  int* values() const { return keys() + n_; }

  void run(Runtime& runtime, int64_t most_key) {
    if (n_ == 0) return;
    int* counts = memory_ + 4 * n_;
    const dim3 grid{unsigned(tiles_)}, threads{sort_tile};
    for (int shift = 0; shift < 31 && most_key >> shift > 0; shift += 8) {
      int *from_keys = keys(), *from_values = values();
      launch(runtime, count_digits_kernel, grid, threads, sizeof(SortStorage), counts, from_keys, n_, shift);
      launch(runtime, exclusive_sum_kernel, dim3(1), dim3(scan_threads), warp_size * sizeof(int), counts,
             digits * tiles_);
      current_ = 1 - current_;
      launch(runtime, place_kernel, grid, threads, sizeof(SortStorage), keys(), values(), from_keys, from_values,
             counts, n_, shift);
    }
  }

 private:
  int64_t n_, tiles_;
  int* memory_ = nullptr;
  int64_t current_ = 0;
};

}  // namespace mixtape::cuda
