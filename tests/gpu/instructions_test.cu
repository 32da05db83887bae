// The instructions of cuda/device on a GPU against the golden vectors that their twins are held to
// (tests/golden/instructions): that the hardware does what NVIDIA's tables say, and the kernels' tests assume.
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "cuda/device/ldmatrix.h"
#include "cuda/device/mma_m16n8k16.h"
#include "cuda/launch.h"

namespace mixtape::cuda {
namespace {

// [32 lanes][columns]
std::vector<uint32_t> golden(const std::string& name, size_t columns) {
  std::ifstream file(std::string(MIXTAPE_GOLDEN) + "/instructions/" + name + ".txt");
  std::vector<uint32_t> values;
  for (std::string line; std::getline(file, line);) {
    std::istringstream in(line);
    for (std::string word; line[0] != '#' && in >> word;) values.push_back(uint32_t(std::stoul(word, nullptr, 16)));
  }
  EXPECT_EQ(values.size(), 32 * columns) << name;
  values.resize(32 * columns);
  return values;
}

// What one warp makes of its lanes' words: four registers a lane.
std::vector<uint32_t> run_warp(void (*kernel)(uint32_t*, const uint32_t*), const std::vector<uint32_t>& lanes,
                               size_t shared_bytes) {
  Runtime runtime(0);
  const int64_t in_bytes = int64_t(lanes.size() * sizeof(uint32_t));
  std::vector<uint32_t> out(128);
  auto* device_in = static_cast<uint32_t*>(runtime.allocate(in_bytes));
  auto* device_out = static_cast<uint32_t*>(runtime.allocate(512));
  runtime.copy_to_device(device_in, lanes.data(), in_bytes);
  launch(runtime, kernel, dim3(1), dim3(32), shared_bytes, device_out, static_cast<const uint32_t*>(device_in));
  runtime.copy_to_host(out.data(), device_out, 512);
  return out;
}

// Columns: a0 .. a3, b0, b1, c0 .. c3, d0 .. d3.
template <class T>
__global__ void mma_kernel(uint32_t* d, const uint32_t* lanes) {
  const uint32_t* mine = lanes + 14 * lane_id();
  const uint32_t a[4] = {mine[0], mine[1], mine[2], mine[3]};
  float c[4];
  for (int i = 0; i < 4; ++i) memcpy(&c[i], &mine[6 + i], 4);
  mma_m16n8k16<T>(c, a, mine[4], mine[5]);
  for (int i = 0; i < 4; ++i) memcpy(&d[4 * lane_id() + i], &c[i], 4);
}

TEST(GpuInstructions, ProductsEqualTheGoldenVectors) {
  for (const bool half : {false, true}) {
    const auto lanes = golden(half ? "mma_m16n8k16_fp16" : "mma_m16n8k16_bf16", 14);
    const auto d = run_warp(half ? mma_kernel<fp16> : mma_kernel<bf16>, lanes, 0);
    for (size_t lane = 0; lane < 32; ++lane)
      for (size_t i = 0; i < 4; ++i) EXPECT_EQ(d[4 * lane + i], lanes[14 * lane + 10 + i]) << half << " lane " << lane;
  }
}

// Columns: the row that the lane addresses, and its four registers.
template <bool transposed>
__global__ void ldmatrix_kernel(uint32_t* out, const uint32_t* lanes) {
  struct Storage {
    bf16 rows[32 * 8];
  };
  Storage& s = shared_memory<Storage>();
  for (int i = 0; i < 8; ++i) s.rows[8 * lane_id() + i] = from_code<bf16>(uint16_t(8 * lane_id() + i));
  __syncwarp();
  uint32_t registers[4];
  ldmatrix<transposed>(registers, s.rows + 8 * lanes[5 * lane_id()]);
  for (int i = 0; i < 4; ++i) out[4 * lane_id() + i] = registers[i];
}

TEST(GpuInstructions, MatrixLoadsEqualTheGoldenVectors) {
  for (const bool transposed : {false, true}) {
    const auto lanes = golden(transposed ? "ldmatrix_transposed" : "ldmatrix", 5);
    const auto out = run_warp(transposed ? ldmatrix_kernel<true> : ldmatrix_kernel<false>, lanes, 512);
    for (size_t lane = 0; lane < 32; ++lane)
      for (size_t i = 0; i < 4; ++i)
        EXPECT_EQ(out[4 * lane + i], lanes[5 * lane + 1 + i]) << transposed << " lane " << lane;
  }
}

}  // namespace
}  // namespace mixtape::cuda
