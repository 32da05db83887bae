// The twins of sm_80's and sm_90's instructions beside their golden vectors: how tf32 rounds, and what asynchronous
// ones do between their issue and the wait.
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "cuda/emulator/launch.h"
#include "tests/cuda/golden_instructions.h"

namespace mixtape::cuda::hopper {
namespace {

using namespace golden;

TEST(HopperInstructions, Tf32RoundsTiesAwayFromZero) {
  const float step = std::ldexp(1.f, -10);
  EXPECT_EQ(tf32_value(to_tf32(1 + step)), 1 + step);
  EXPECT_EQ(tf32_value(to_tf32(1 + step / 2)), 1 + step);
  EXPECT_EQ(tf32_value(to_tf32(-1 - step / 2)), -1 - step);
  EXPECT_EQ(tf32_value(to_tf32(1 + step * 0.49f)), 1);
  EXPECT_EQ(tf32_value(to_tf32(INFINITY)), INFINITY);
  EXPECT_TRUE(std::isnan(tf32_value(to_tf32(NAN))));
}

// The sums of a product under way, which nobody may read.
struct ExpectsNaN {
  template <int N>
  static void look(const float (&sums)[N][4]) {
    require(std::isnan(sums[0][0]) && std::isnan(sums[N - 1][3]), "sums are there before the wait");
  }
};

TEST(HopperInstructions, SumsAreNotThereBeforeTheWait) {
  const std::vector<uint16_t> memory(memory_elements);
  const std::vector<uint32_t> lanes(4 * warpgroup_size);
  std::vector<float> d(2 * warpgroup_size * 64, NAN);
  emulator::launch(wgmma_kernel<bf16, false, ExpectsNaN>, dim3(1), dim3(warpgroup_size), sizeof(MatrixMemory), d.data(),
                   memory.data(), lanes.data());
  EXPECT_EQ(d[0], 0);
  emulator::launch(wgmma_kernel<fp16, true, ExpectsNaN>, dim3(1), dim3(warpgroup_size), sizeof(MatrixMemory), d.data(),
                   memory.data(), lanes.data());
  EXPECT_EQ(d.back(), 0);
}

// A second phase never ends: the message names the barrier's place.
TEST(HopperInstructions, AWaitForAPhaseThatDoesNotEndIsADeadlock) {
  Runtime runtime(0);
  const TensorMap map = tensor_map(numbered_tensor(runtime), 24, 8);
  std::vector<uint16_t> out(8 * 64);
  try {
    emulator::launch(box_kernel<2>, dim3(1), dim3(64), sizeof(BoxStorage), out.data(), map);
    FAIL();
  } catch (const Error& e) {
    const std::string text = e.what();
    EXPECT_NE(text.find("deadlock"), text.npos) << text;
    EXPECT_NE(text.find("mbarrier wait ("), text.npos) << text;
  }
}

}  // namespace
}  // namespace mixtape::cuda::hopper
