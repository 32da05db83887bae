// Bugs of every kind that the emulator is for, planted one at a time: each must be found, and the same kernel without
// it must not be accused. Those of Hopper's asynchronous instructions are in planted_async_bugs_test.cpp.
#include <cmath>
#include <cstring>
#include <numeric>
#include <vector>

#include "cuda/device/cp_async.h"
#include "cuda/device/ldmatrix.h"
#include "cuda/device/mma_m16n8k16.h"
#include "cuda/device/reduce.h"
#include "cuda/emulator/launch.h"
#include "tests/cuda/planted_bugs.h"

namespace mixtape::cuda {
namespace {

enum class Bug {
  none,
  missing_barrier,
  barrier_in_a_branch,
  return_before_barrier,
  two_different_barriers,
  write_past_shared_memory,
  more_shared_memory_than_launched,
  uninitialised_shared_memory,
  no_barrier_before_refill,
  missing_warp_barrier,
  return_before_shuffle,
  shuffle_in_a_branch,
  shuffle_mask_without_itself,
  shuffle_reads_outside_mask,
  wrong_lane,
  too_few_lanes_summed,
  off_by_one_tile,
  store_past_the_end,
  element_left_out,
  blocks_share_an_address,
  sum_in_order_of_arrival,
  no_wait,
  waits_for_too_few_groups,
  no_barrier_after_wait,
  copy_into_what_is_read,
  copy_to_misaligned_address,
  copy_from_misaligned_address,
  copy_past_shared_memory,
  copy_never_waited_for,
  swapped_operands,
  operand_of_wrong_rows,
  not_transposed,
  misaligned_matrix_row,
  warp_leaves_before_product,
  too_many_threads,
};

// y reversed in each block of 64, twice, through shared memory.
template <Bug bug>
__global__ void reverse_kernel(float* y, const float* x, int n) {
  struct Storage {
    float v[64];
  };
  Storage& s = shared_memory<Storage>();
  const int t = int(threadIdx.x), at = int(blockIdx.x) * 64 + t;
  if (bug == Bug::return_before_barrier && at >= n) return;
  if (bug != Bug::uninitialised_shared_memory || t != 7) s.v[t] = at < n ? x[at] : 0;
  volatile int past = 64;  // which the compiler must not see through
  if (bug == Bug::write_past_shared_memory && t == 5) s.v[past + t] = 1;
  if (bug == Bug::barrier_in_a_branch) {
    if (t < 32) __syncthreads();
  } else if (bug == Bug::two_different_barriers) {
    if (t < 32)
      __syncthreads();
    else
      __syncthreads();
  } else if (bug != Bug::missing_barrier) {
    __syncthreads();
  }
  const float reversed = s.v[63 - t];
  if (bug != Bug::no_barrier_before_refill) __syncthreads();
  s.v[t] = reversed;
  __syncthreads();
  if (at < n) y[at] = s.v[63 - t];
}

template <Bug bug>
bool reverse_twice() {
  constexpr int n = 150;
  std::vector<float> x(n), y(n, NAN);
  std::iota(x.begin(), x.end(), 1.f);
  emulator::launch(reverse_kernel<bug>, dim3(3), dim3(bug == Bug::too_many_threads ? 2048 : 64),
                   bug == Bug::more_shared_memory_than_launched ? 128 : 256, y.data(), x.data(), n);
  return y == x;
}

TEST(PlantedBugs, Barriers) {
  EXPECT_FOUND(reverse_twice, PLANTED(reverse_twice, missing_barrier), PLANTED(reverse_twice, barrier_in_a_branch),
               PLANTED(reverse_twice, return_before_barrier), PLANTED(reverse_twice, two_different_barriers),
               PLANTED(reverse_twice, write_past_shared_memory),
               PLANTED(reverse_twice, more_shared_memory_than_launched),
               PLANTED(reverse_twice, uninitialised_shared_memory), PLANTED(reverse_twice, no_barrier_before_refill),
               PLANTED(reverse_twice, too_many_threads));
}

// y[i] = sum of x[i ^ 1] of 32 lanes, over warps.
template <Bug bug>
__global__ void warps_kernel(float* y, const float* x) {
  struct Storage {
    float v[64];
  };
  Storage& s = shared_memory<Storage>();
  const int t = int(threadIdx.x), lane = lane_id();
  if (bug == Bug::return_before_shuffle && lane == 9) return;
  s.v[t] = x[t];
  if (bug != Bug::missing_warp_barrier) __syncwarp();
  float v = s.v[t ^ 1];
  if (bug == Bug::wrong_lane) v = s.v[t];
  unsigned mask = all_lanes;
  if (bug == Bug::shuffle_mask_without_itself) mask = 0xffff;
  if (bug == Bug::shuffle_in_a_branch && lane < 16)
    v += __shfl_xor_sync(0xffffu, v, 16);
  else
    for (int d = bug == Bug::too_few_lanes_summed ? 8 : 16; d > 0; d /= 2)
      v += bug == Bug::shuffle_reads_outside_mask ? __shfl_sync(1u << lane, v, lane ^ d) : __shfl_xor_sync(mask, v, d);
  y[t] = bug == Bug::wrong_lane ? v + s.v[t] - s.v[t ^ 1] : v;
}

template <Bug bug>
bool sums_of_warps() {
  std::vector<float> x(64), y(64, NAN);
  std::iota(x.begin(), x.end(), 1.f);
  emulator::launch(warps_kernel<bug>, dim3(1), dim3(64), 256, y.data(), x.data());
  for (int t = 0; t < 64; ++t)
    if (y[size_t(t)] != (t < 32 ? 528.f : 1552.f)) return false;
  return true;
}

TEST(PlantedBugs, Warps) {
  EXPECT_FOUND(sums_of_warps, PLANTED(sums_of_warps, missing_warp_barrier),
               PLANTED(sums_of_warps, return_before_shuffle), PLANTED(sums_of_warps, shuffle_in_a_branch),
               PLANTED(sums_of_warps, shuffle_mask_without_itself), PLANTED(sums_of_warps, shuffle_reads_outside_mask),
               PLANTED(sums_of_warps, wrong_lane), PLANTED(sums_of_warps, too_few_lanes_summed));
}

// part[block] = the sum of the block's tiles of 32; with the planted ones also into parts[0], in whatever order.
template <Bug bug>
__global__ void tiles_kernel(float* parts, float* y, const float* x, int n) {
  const int tiles = bug == Bug::off_by_one_tile ? n / 32 : (n + 31) / 32;
  float sum = 0;
  for (int t = int(blockIdx.x); t < tiles; t += int(gridDim.x)) {
    const int i = t * 32 + lane_id();
    sum += i < n ? x[i] : 0;
    const bool last = bug == Bug::store_past_the_end ? i <= n : bug == Bug::element_left_out ? i < n - 1 : i < n;
    if (last) y[i] = 2 * (i < n ? x[i] : 0);
  }
  sum = warp_sum(sum);
  if (lane_id() != 0) return;
  if (bug == Bug::blocks_share_an_address)
    parts[0] = sum;
  else if (bug == Bug::sum_in_order_of_arrival)
    parts[0] += sum;
  else
    parts[blockIdx.x] = sum;
}

template <Bug bug>
bool tiles() {
  constexpr int n = 999, blocks = 7;
  constexpr float guard = 77;
  std::vector<float> x(n), parts(blocks), y(n + 1, guard);
  for (int i = 0; i < n; ++i) {
    x[size_t(i)] = 1.f / float(1 + i % 97);
    y[size_t(i)] = NAN;
  }
  emulator::launch(tiles_kernel<bug>, dim3(blocks), dim3(32), 0, parts.data(), y.data(), x.data(), n);
  for (int i = 0; i < n; ++i)
    if (y[size_t(i)] != 2 * x[size_t(i)]) return false;
  const float sum = std::accumulate(parts.begin(), parts.end(), 0.f);
  static float first = NAN;  // of the same process: every order must give the same bits
  if (std::isnan(first)) first = sum;
  return y[n] == guard && sum == first && std::abs(sum - std::accumulate(x.begin(), x.end(), 0.0)) < 1e-3;
}

TEST(PlantedBugs, TilesAndBlocks) {
  EXPECT_FOUND(tiles, PLANTED(tiles, off_by_one_tile), PLANTED(tiles, store_past_the_end),
               PLANTED(tiles, element_left_out), PLANTED(tiles, blocks_share_an_address),
               PLANTED(tiles, sum_in_order_of_arrival));
}

// y = x through two stages of shared memory, each filled by cp.async while the other is read by the next warp.
template <Bug bug>
__global__ void copies_kernel(float* y, const float* x, int tiles) {
  struct Storage {
    float v[2][256];
  };
  Storage& s = shared_memory<Storage>();
  const int t = int(threadIdx.x);
  const auto fetch = [&](int tile) {
    float* to = s.v[tile % 2] + 4 * t;
    const float* from = x + tile * 256 + 4 * t;
    if (bug == Bug::copy_to_misaligned_address && t == 3) to += 1;
    if (bug == Bug::copy_from_misaligned_address && t == 3) from += 1;
    if (bug == Bug::copy_past_shared_memory && t == 63) to += 256;
    copy_async(to, from);
  };
  fetch(0);
  copy_async_commit();
  for (int tile = 0; tile < tiles; ++tile) {
    if (tile + 1 < tiles) fetch(tile + 1);
    copy_async_commit();
    if (bug == Bug::waits_for_too_few_groups)
      copy_async_wait<2>();
    else if (bug != Bug::no_wait && bug != Bug::copy_never_waited_for)
      copy_async_wait<1>();
    if (bug != Bug::no_barrier_after_wait) __syncthreads();
    for (int i = 0; i < 4; ++i) {
      const int at = i * 64 + (t + 32) % 64;
      y[tile * 256 + at] = bug == Bug::copy_never_waited_for ? x[tile * 256 + at] : s.v[tile % 2][at];
    }
    if (bug != Bug::copy_into_what_is_read) __syncthreads();
  }
  if (bug != Bug::copy_never_waited_for) copy_async_wait<0>();
}

template <Bug bug>
bool copies() {
  constexpr int tiles = 5;
  std::vector<float> memory(tiles * 256 + 8), y(tiles * 256, NAN);
  float* x = memory.data() + (16 - reinterpret_cast<uintptr_t>(memory.data()) % 16) / 4 % 4;
  std::iota(x, x + tiles * 256, 1.f);
  emulator::launch(copies_kernel<bug>, dim3(1), dim3(64), 2048, y.data(), x, tiles);
  return std::memcmp(x, y.data(), y.size() * sizeof(float)) == 0;
}

TEST(PlantedBugs, AsynchronousCopies) {
  EXPECT_FOUND(copies, PLANTED(copies, no_wait), PLANTED(copies, waits_for_too_few_groups),
               PLANTED(copies, no_barrier_after_wait), PLANTED(copies, copy_into_what_is_read),
               PLANTED(copies, copy_to_misaligned_address), PLANTED(copies, copy_from_misaligned_address),
               PLANTED(copies, copy_past_shared_memory), PLANTED(copies, copy_never_waited_for));
}

// c[16 x 8] = a[16 x 16] b[16 x 8], b stored [k][n], 8 more columns beside it.
template <Bug bug>
__global__ void product_kernel(float* c, const bf16* a, const bf16* b) {
  struct Storage {
    bf16 a[16 * 16], b[16 * 16];
  };
  Storage& s = shared_memory<Storage>();
  const int lane = lane_id();
  for (int i = lane; i < 256; i += 32) s.a[i] = a[i], s.b[i] = b[i];
  __syncwarp();
  uint32_t fa[4], fb[4];
  const int row = bug == Bug::operand_of_wrong_rows ? lane % 8 : lane % 16;
  ldmatrix<false>(fa, s.a + row * 16 + lane / 16 * 8);
  const bf16* b_row = s.b + lane % 16 * 16 + lane / 16 * 8 + (bug == Bug::misaligned_matrix_row ? 1 : 0);
  if (bug == Bug::not_transposed)
    ldmatrix<false>(fb, b_row);
  else
    ldmatrix<true>(fb, b_row);
  if (bug == Bug::warp_leaves_before_product && lane >= 16) return;
  float d[4] = {};
  if (bug == Bug::swapped_operands)
    mma_m16n8k16<bf16>(d, fa, fb[1], fb[0]);
  else
    mma_m16n8k16<bf16>(d, fa, fb[0], fb[1]);
  for (int r = 0; r < 4; ++r) c[(lane / 4 + r / 2 * 8) * 8 + lane % 4 * 2 + r % 2] = d[r];
}

template <Bug bug>
bool product() {
  std::vector<bf16> a, b;
  for (int i = 0; i < 256; ++i) {
    a.push_back(bf16(float(i * 37 % 23 - 11)));
    b.push_back(bf16(float(i * 29 % 19 - 9)));
  }
  std::vector<float> c(128, NAN);
  emulator::launch(product_kernel<bug>, dim3(1), dim3(32), 1024, c.data(), a.data(), b.data());
  for (size_t m = 0; m < 16; ++m)
    for (size_t n = 0; n < 8; ++n) {
      float sum = 0;
      for (size_t k = 0; k < 16; ++k) sum += float(a[m * 16 + k]) * float(b[k * 16 + n]);
      if (!(c[m * 8 + n] == sum)) return false;
    }
  return true;
}

TEST(PlantedBugs, Products) {
  EXPECT_FOUND(product, PLANTED(product, swapped_operands), PLANTED(product, operand_of_wrong_rows),
               PLANTED(product, not_transposed), PLANTED(product, misaligned_matrix_row),
               PLANTED(product, warp_leaves_before_product));
}

}  // namespace
}  // namespace mixtape::cuda
