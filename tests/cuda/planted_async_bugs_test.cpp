// Bugs in kernels that work asynchronously as Hopper does (TMA, mbarrier, wgmma), planted one at a time; see
// planted_bugs_test.cpp.
#include <cmath>
#include <vector>

#include "cuda/device/tma.h"
#include "cuda/device/wgmma.h"
#include "cuda/emulator/launch.h"
#include "tests/cuda/planted_bugs.h"

namespace mixtape::cuda::async_bugs {
namespace {

enum class Bug {
  none,
  no_wait_for_the_copy,
  wait_for_the_wrong_parity,
  too_few_bytes_expected,
  too_many_bytes_expected,
  no_wait_for_an_empty_slot,
  slot_released_before_the_wait,
  slot_released_by_one_warp,
  slot_released_too_often,
  slot_never_released,
  barrier_not_initialised,
  barrier_used_before_its_initialisation,
  copy_to_misaligned_tile,
  copy_past_shared_memory,
  copy_not_waited_for_at_the_end,
  sums_read_before_the_wait,
  waits_for_too_few_products,
  product_not_committed,
  no_fence_before_the_product,
  operand_in_registers_changed_before_the_wait,
  operand_in_memory_changed_before_the_wait,
  operand_of_wrong_columns,
  operand_of_wrong_rows,
  a_warp_leaves_out_a_product,
  old_sums_overwritten,
  lanes_left_behind,
};

constexpr int slots = 2, tiles = 5, consumers = 4;
struct PipelineStorage {
  alignas(1024) bf16 a[64 * 64], b[slots][64 * 64];
  Mbarrier full[slots], empty[slots], a_full;
};

template <Bug bug>
__device__ void produce(PipelineStorage& s, const TensorMap& a, const TensorMap& b) {
  constexpr int bytes = int(sizeof s.a);
  arrive_expecting(s.a_full, bytes);
  copy_box(s.a, a, 0, 0, 0, s.a_full);
  const int count = bug == Bug::copy_not_waited_for_at_the_end ? tiles + 1 : tiles;
  for (int tile = 0; tile < count; ++tile) {
    const int slot = tile % slots;
    if (bug != Bug::no_wait_for_an_empty_slot) wait(s.empty[slot], unsigned(tile / slots % 2 ^ 1));
    arrive_expecting(s.full[slot], bug == Bug::too_few_bytes_expected    ? bytes / 2
                                   : bug == Bug::too_many_bytes_expected ? 2 * bytes
                                                                         : bytes);
    bf16* to = s.b[slot];
    if (bug == Bug::copy_to_misaligned_tile) to += 8;
    if (bug == Bug::copy_past_shared_memory && tile == 3) to += 64 * 64;
    copy_box(to, b, 0, 0, tile % tiles * 64, s.full[slot]);
  }
}

// y[64 x 64] = the sum over tiles of a b^T. One warp brings tiles, four multiply.
template <Bug bug>
__global__ void pipeline_kernel(float* y, const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap b) {
  auto& s = shared_memory<PipelineStorage>();
  if (threadIdx.x == 0) {
    for (int i = 0; i < slots; ++i) {
      init(s.full[i], 1);
      init(s.empty[i], bug == Bug::slot_released_by_one_warp ? 1 : consumers);
    }
    if (bug != Bug::barrier_not_initialised) init(s.a_full, 1);
    fence_of_init();
  }
  if (bug != Bug::barrier_used_before_its_initialisation) __syncthreads();
  if (warp_id() == consumers) {
    if (lane_id() == 0) produce<bug>(s, a, b);
    return;
  }
  float sums[8][4] = {};
  wait(s.a_full, 0);
  for (int tile = 0; tile < tiles; ++tile) {
    const int slot = tile % slots;
    const unsigned parity = unsigned(tile / slots % 2);
    if (bug != Bug::no_wait_for_the_copy)
      wait(s.full[slot], bug == Bug::wait_for_the_wrong_parity ? parity ^ 1 : parity);
    const auto release = [&] {
      if (bug == Bug::slot_never_released || (bug == Bug::slot_released_by_one_warp && warp_id() > 0)) return;
      __syncwarp();
      if (lane_id() == 0 || (bug == Bug::slot_released_too_often && lane_id() == 1)) arrive(s.empty[slot]);
    };
    if (bug != Bug::no_fence_before_the_product) wgmma_fence(sums);
    const SharedMatrix left = shared_matrix<false>(s.a, 0), right = shared_matrix<false>(s.b[slot], 0);
    const int wrong = bug == Bug::operand_of_wrong_columns ? 16 : bug == Bug::operand_of_wrong_rows ? 1024 : 0;
    for (int k = 0; k < 64; k += 16) {
      if (bug == Bug::a_warp_leaves_out_a_product && warp_id() == 2 && tile == 1) continue;
      wgmma<bf16, false>(sums, moved(left, 2 * k), moved(right, 2 * k + (tile ? 0 : wrong)),
                         bug != Bug::old_sums_overwritten || k > 0);
    }
    if (bug != Bug::product_not_committed) wgmma_commit();
    if (bug == Bug::slot_released_before_the_wait) release();
    if (bug == Bug::operand_in_memory_changed_before_the_wait && threadIdx.x == 5) s.b[slot][7] = bf16(9.f);
    if (bug == Bug::sums_read_before_the_wait && tile + 1 == tiles) y[int(threadIdx.x)] = sums[0][0];
    if (bug == Bug::waits_for_too_few_products)
      wgmma_wait<1>(sums);
    else
      wgmma_wait<0>(sums);
    if (bug != Bug::slot_released_before_the_wait) release();
  }
  const int row = warp_id() * 16 + lane_id() / 4, col = lane_id() % 4 * 2;
  const int first = bug == Bug::sums_read_before_the_wait ? 1 : 0;
  for (int n = 0; n < 8; ++n)
    for (int r = first; r < 4; ++r) y[(row + r / 2 * 8) * 64 + 8 * n + col + r % 2] = sums[n][r];
}

// a [64][64]; tiles of b [64][64].
struct Matrices {
  std::vector<bf16> a, b;
  Matrices() {
    for (int i = 0; i < 64 * 64; ++i) a.push_back(bf16(float(i * 37 % 7 - 3)));
    for (int i = 0; i < tiles * 64 * 64; ++i) b.push_back(bf16(float(i * 29 % 5 - 2 + i / 4096)));
  }
  static TensorMap map(const std::vector<bf16>& m) {
    return {.data = reinterpret_cast<const unsigned char*>(m.data()),
            .size = {64, 1, int64_t(m.size()) / 64},
            .stride = {128, 128},
            .box = {64, 1, 64}};
  }
  float at(int m, int n) const {
    float sum = 0;
    for (int tile = 0; tile < tiles; ++tile)
      for (int k = 0; k < 64; ++k) sum += float(a[size_t(m * 64 + k)]) * float(b[size_t((tile * 64 + n) * 64 + k)]);
    return sum;
  }
};

template <Bug bug>
bool pipeline() {
  const Matrices matrices;
  std::vector<float> y(64 * 64, NAN);
  emulator::launch(pipeline_kernel<bug>, dim3(1), dim3(32 * (consumers + 1)), sizeof(PipelineStorage), y.data(),
                   Matrices::map(matrices.a), Matrices::map(matrices.b));
  for (int m = 0; m < 64; ++m)
    for (int n = 0; n < 64; ++n)
      if (!(y[size_t(m * 64 + n)] == matrices.at(m, n))) return false;
  return true;
}

TEST(PlantedBugs, CopiesOfBoxesAndTheirBarriers) {
  EXPECT_FOUND(pipeline, PLANTED(pipeline, no_wait_for_the_copy), PLANTED(pipeline, wait_for_the_wrong_parity),
               PLANTED(pipeline, too_few_bytes_expected), PLANTED(pipeline, too_many_bytes_expected),
               PLANTED(pipeline, no_wait_for_an_empty_slot), PLANTED(pipeline, slot_released_before_the_wait),
               PLANTED(pipeline, slot_released_by_one_warp), PLANTED(pipeline, slot_released_too_often),
               PLANTED(pipeline, slot_never_released), PLANTED(pipeline, barrier_not_initialised),
               PLANTED(pipeline, barrier_used_before_its_initialisation), PLANTED(pipeline, copy_to_misaligned_tile),
               PLANTED(pipeline, copy_past_shared_memory), PLANTED(pipeline, copy_not_waited_for_at_the_end));
}

TEST(PlantedBugs, ProductsOfAWarpgroup) {
  EXPECT_FOUND(pipeline, PLANTED(pipeline, sums_read_before_the_wait), PLANTED(pipeline, waits_for_too_few_products),
               PLANTED(pipeline, product_not_committed), PLANTED(pipeline, no_fence_before_the_product),
               PLANTED(pipeline, operand_in_memory_changed_before_the_wait),
               PLANTED(pipeline, operand_of_wrong_columns), PLANTED(pipeline, operand_of_wrong_rows),
               PLANTED(pipeline, a_warp_leaves_out_a_product), PLANTED(pipeline, old_sums_overwritten));
}

// y = p b, p from registers.
template <Bug bug>
__global__ void registers_kernel(float* y, const bf16* b) {
  struct Storage {
    alignas(1024) bf16 b[16 * 64];
  };
  auto& s = shared_memory<Storage>();
  for (int i = int(threadIdx.x); i < 16 * 64; i += warpgroup_size)
    s.b[i / 64 * 64 + (i % 64 / 8 ^ i / 64 % 8) * 8 + i % 8] = b[i];
  fence_for_async();
  __syncthreads();
  float sums[8][4];
  uint32_t p[1][4];
  for (int r = 0; r < 4; ++r) p[0][r] = pack<bf16>(float(r), float(lane_id() % 4));
  wgmma_fence(sums, p);
  wgmma<bf16, true>(sums, p[0], shared_matrix<true>(s.b, 0), false);
  wgmma_commit();
  if (bug == Bug::operand_in_registers_changed_before_the_wait) p[0][2] = pack<bf16>(7.f, 7.f);
  wgmma_wait<0>(sums, p);
  for (int n = 0; n < 8; ++n)
    for (int r = 0; r < 4; ++r)
      y[(warp_id() * 16 + lane_id() / 4 + r / 2 * 8) * 64 + 8 * n + lane_id() % 4 * 2 + r % 2] = sums[n][r];
}

template <Bug bug>
bool registers() {
  std::vector<bf16> b;
  for (int i = 0; i < 16 * 64; ++i) b.push_back(bf16(float(i * 29 % 11 - 5)));
  std::vector<float> y(64 * 64, NAN);
  emulator::launch(registers_kernel<bug>, dim3(1), dim3(warpgroup_size), 2048, y.data(), b.data());
  for (int m = 0; m < 64; ++m)
    for (int n = 0; n < 64; ++n) {
      float sum = 0;  // p[m][k]: register m / 8 % 2 + 2 (k / 8) of lane 4 (m % 8) + k % 8 / 2
      for (int k = 0; k < 16; ++k)
        sum += float(k % 2 ? k % 8 / 2 : m / 8 % 2 + 2 * (k / 8)) * float(b[size_t(k * 64 + n)]);
      if (!(y[size_t(m * 64 + n)] == sum)) return false;
    }
  return true;
}

TEST(PlantedBugs, OperandsInRegisters) {
  EXPECT_FOUND(registers, PLANTED(registers, operand_in_registers_changed_before_the_wait));
}

// Two warps count in turns. Lanes that have not seen a phase end when their first lane arrives may miss the next one
// too, and then wait for a parity that has come round.
template <Bug bug>
__global__ void turns_kernel(int* y, int steps) {
  struct Storage {
    Mbarrier turn[2];
    int count;
  };
  auto& s = shared_memory<Storage>();
  if (threadIdx.x == 0) {
    for (Mbarrier& turn : s.turn) init(turn, 1);
    s.count = 0;
    fence_of_init();
  }
  __syncthreads();
  const int me = warp_id();
  for (int step = 0; step < steps; ++step) {
    wait(s.turn[me], unsigned(step % 2 ^ (me == 0 ? 1 : 0)));
    if (lane_id() == 0) ++s.count;
    if (bug != Bug::lanes_left_behind) __syncwarp();
    if (lane_id() == 0) arrive(s.turn[1 - me]);
  }
  __syncthreads();
  y[threadIdx.x] = s.count;
}

template <Bug bug>
bool turns() {
  constexpr int steps = 100;
  std::vector<int> y(64);
  emulator::launch(turns_kernel<bug>, dim3(1), dim3(64), 64, y.data(), steps);
  return y == std::vector<int>(64, 2 * steps);
}

TEST(PlantedBugs, Turns) { EXPECT_FOUND(turns, PLANTED(turns, lanes_left_behind)); }

}  // namespace
}  // namespace mixtape::cuda::async_bugs
