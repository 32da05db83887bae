// What the emulator makes of copies, reductions, deadlocks and the order of threads. Products and loads of matrices are
// in golden_instructions_test.cpp.
#include <gtest/gtest.h>

#include <numeric>
#include <string>
#include <vector>

#include "cuda/device/cp_async.h"
#include "cuda/device/reduce.h"
#include "cuda/device/vec.h"
#include "cuda/emulator/launch.h"

namespace mixtape::cuda {
namespace {

// The last bytes of a copy are zeros, and the target is not there before the wait (where one may look).
__global__ void copy_kernel(float* out, const float* from) {
  struct Storage {
    float v[32 * 4];
  };
  Storage& s = shared_memory<Storage>();
  copy_async(s.v + 4 * lane_id(), from + 4 * lane_id(), lane_id() % 17);
  copy_async_commit();
  copy_async_wait<0>();
  for (int i = 0; i < 4; ++i) out[4 * lane_id() + i] = s.v[4 * lane_id() + i];
}

TEST(Instructions, CopiesEndInZeros) {
  alignas(16) float from[128];
  std::iota(from, from + 128, 1.f);
  float out[128];
  emulator::launch(copy_kernel, dim3(1), dim3(32), 512, out, from);
  for (int lane = 0; lane < 32; ++lane)
    for (int i = 0; i < 4; ++i) {
      if (lane % 17 >= 4 * i + 4) {
        EXPECT_EQ(out[4 * lane + i], from[4 * lane + i]);
      } else if (lane % 17 <= 4 * i) {
        EXPECT_EQ(out[4 * lane + i], 0);
      }
    }
}

__global__ void reductions_kernel(float* sums, float* mosts, int* before, int* totals) {
  struct Storage {
    float f[32];
    int i[32];
  };
  Storage& s = shared_memory<Storage>();
  const int t = int(threadIdx.x);
  sums[t] = block_sum(float(t + 1), s.f);
  mosts[t] = block_max(float(t == 77 ? 5 : -t), s.f);
  before[t] = block_exclusive_sum(t % 5, s.i, totals[t]);
}

TEST(Instructions, ReductionsOverABlock) {
  constexpr int n = 160;
  for (int seed = 1; seed < 6; ++seed) {
    emulator::set_seed(uint64_t(seed));
    std::vector<float> sums(n), mosts(n);
    std::vector<int> before(n), totals(n);
    emulator::launch(reductions_kernel, dim3(1), dim3(n), 256, sums.data(), mosts.data(), before.data(), totals.data());
    int sum = 0;
    for (int t = 0; t < n; ++t) {
      EXPECT_EQ(sums[size_t(t)], n * (n + 1) / 2);
      EXPECT_EQ(mosts[size_t(t)], 5);
      EXPECT_EQ(before[size_t(t)], sum);
      EXPECT_EQ(totals[size_t(t)], 320);
      sum += t % 5;
    }
  }
}

// What the emulator says, so that whoever reads it finds the place.
__global__ void deadlock_kernel(int* out) {
  if (threadIdx.x == 3) return;
  __syncthreads();
  out[threadIdx.x] = 1;
}

__global__ void ones_kernel(int* out) {
  __syncthreads();
  out[threadIdx.x] = 1;
}

TEST(Emulator, ADeadlockNamesItsPlaces) {
  std::vector<int> out(64);
  try {
    emulator::launch(deadlock_kernel, dim3(1), dim3(64), 0, out.data());
    FAIL();
  } catch (const Error& e) {
    const std::string text = e.what();
    EXPECT_NE(text.find("deadlock"), text.npos) << text;
    EXPECT_NE(text.find("thread 3 has returned"), text.npos) << text;
    EXPECT_NE(text.find("__syncthreads ("), text.npos) << text;
    EXPECT_NE(text.find("instructions_test.cpp:"), text.npos) << text;
  }
  // And the next launch works.
  emulator::launch(ones_kernel, dim3(1), dim3(64), 0, out.data());
  EXPECT_EQ(out, std::vector<int>(64, 1));
}

// The order of threads is the seed's: the same seed the same order, other seeds others.
__global__ void order_kernel(int* order, int* next) {
  order[(*next)++] = int(blockIdx.x * blockDim.x + threadIdx.x);
  __syncwarp();
}

TEST(Emulator, TheSeedMakesTheOrder) {
  if (MIXTAPE_TSAN) GTEST_SKIP() << "the kernel races on purpose";
  const auto order = [](uint64_t seed) {
    std::vector<int> order(4 * 96, -1);
    int next = 0;
    emulator::set_seed(seed);
    emulator::launch(order_kernel, dim3(4), dim3(96), 0, order.data(), &next);
    EXPECT_EQ(next, 4 * 96);
    return order;
  };
  EXPECT_EQ(order(1), order(1));
  EXPECT_NE(order(1), order(2));
  EXPECT_NE(order(2), order(3));
}

}  // namespace
}  // namespace mixtape::cuda
