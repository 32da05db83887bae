// The twins of sm_89's and sm_90's instructions against golden vectors (tests/golden/instructions/make.py), and what
// asynchronous ones do between their issue and the wait.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "cuda/device/mma_m16n8k32.h"
#include "cuda/device/mma_m16n8k8.h"
#include "cuda/device/setmaxnreg.h"
#include "cuda/device/stmatrix.h"
#include "cuda/device/tma.h"
#include "cuda/device/vec.h"
#include "cuda/device/wgmma.h"
#include "cuda/emulator/launch.h"

namespace mixtape::cuda::hopper {
namespace {

// Lines of words, those of a name behind "NAME NUMBER"; without names all are "".
std::map<std::string, std::map<int, std::vector<std::string>>> golden_lines(const std::string& file, bool named) {
  std::ifstream in(std::string(MIXTAPE_GOLDEN) + "/instructions/" + file + ".txt");
  EXPECT_TRUE(in.good()) << file;
  std::map<std::string, std::map<int, std::vector<std::string>>> lines;
  int count = 0;
  for (std::string line; std::getline(in, line);) {
    if (line[0] == '#') continue;
    std::istringstream words(line);
    std::string name;
    int number = count++;
    if (named) words >> name >> number;
    for (std::string word; words >> word;) lines[name][number].push_back(word);
  }
  return lines;
}
uint32_t hexadecimal(const std::string& word) { return uint32_t(std::stoul(word, nullptr, 16)); }

std::vector<uint32_t> golden_lanes(const std::string& file, size_t columns) {
  std::vector<uint32_t> values;
  const auto lines = golden_lines(file, false);
  for (const auto& [lane, words] : lines.at(""))
    for (const std::string& word : words) values.push_back(hexadecimal(word));
  EXPECT_EQ(values.size(), 32 * columns) << file;
  values.resize(32 * columns);
  return values;
}

using Mma = void (*)(float (&)[4], const uint32_t (&)[4], uint32_t, uint32_t, const char*, int);

template <Mma mma>
__global__ void mma_kernel(float* d, const uint32_t* lanes) {
  const uint32_t* mine = lanes + 14 * lane_id();
  const uint32_t a[4] = {mine[0], mine[1], mine[2], mine[3]};
  float c[4];
  std::memcpy(c, mine + 6, sizeof c);
  mma(c, a, mine[4], mine[5], __FILE__, __LINE__);
  for (int i = 0; i < 4; ++i) d[4 * lane_id() + i] = c[i];
}

template <Mma mma>
void expect_mma(const std::string& name) {
  const auto lanes = golden_lanes(name, 14);
  std::vector<float> d(128, NAN);
  emulator::launch(mma_kernel<mma>, dim3(1), dim3(32), 0, d.data(), lanes.data());
  for (size_t lane = 0; lane < 32; ++lane)
    for (size_t i = 0; i < 4; ++i) {
      float expected;
      std::memcpy(&expected, &lanes[14 * lane + 10 + i], 4);
      EXPECT_EQ(d[4 * lane + i], expected) << name << " lane " << lane;
    }
}

TEST(HopperInstructions, ProductsOfOtherTypesEqualTheGoldenVectors) {
  expect_mma<mma_m16n8k8_tf32>("mma_m16n8k8_tf32");
  expect_mma<mma_m16n8k32<e4m3, e4m3>>("mma_m16n8k32_e4m3_e4m3");
  expect_mma<mma_m16n8k32<e4m3, e5m2>>("mma_m16n8k32_e4m3_e5m2");
  expect_mma<mma_m16n8k32<e5m2, e4m3>>("mma_m16n8k32_e5m2_e4m3");
  expect_mma<mma_m16n8k32<e5m2, e5m2>>("mma_m16n8k32_e5m2_e5m2");
}

TEST(HopperInstructions, Tf32RoundsTiesAwayFromZero) {
  const float step = std::ldexp(1.f, -10);
  EXPECT_EQ(tf32_value(to_tf32(1 + step)), 1 + step);
  EXPECT_EQ(tf32_value(to_tf32(1 + step / 2)), 1 + step);
  EXPECT_EQ(tf32_value(to_tf32(-1 - step / 2)), -1 - step);
  EXPECT_EQ(tf32_value(to_tf32(1 + step * 0.49f)), 1);
  EXPECT_EQ(tf32_value(to_tf32(INFINITY)), INFINITY);
  EXPECT_TRUE(std::isnan(tf32_value(to_tf32(NAN))));
}

template <bool transposed>
__global__ void stmatrix_kernel(uint32_t* out, const uint32_t* lanes) {
  struct Storage {
    bf16 rows[32 * 8];
  };
  Storage& s = shared_memory<Storage>();
  const uint32_t* mine = lanes + 9 * lane_id();
  const uint32_t registers[4] = {mine[1], mine[2], mine[3], mine[4]};
  stmatrix<transposed>(s.rows + 8 * mine[0], registers);
  __syncwarp();
  for (int i = 0; i < 4; ++i)
    out[4 * lane_id() + i] =
        uint32_t(s.rows[8 * lane_id() + 2 * i + 1].code) << 16 | s.rows[8 * lane_id() + 2 * i].code;
}

TEST(HopperInstructions, MatrixStoresEqualTheGoldenVectors) {
  for (const bool transposed : {false, true}) {
    const auto lanes = golden_lanes(transposed ? "stmatrix_transposed" : "stmatrix", 9);
    std::vector<uint32_t> out(128);
    emulator::launch(transposed ? stmatrix_kernel<true> : stmatrix_kernel<false>, dim3(1), dim3(32), 512, out.data(),
                     lanes.data());
    for (size_t lane = 0; lane < 32; ++lane)
      for (size_t i = 0; i < 4; ++i)
        EXPECT_EQ(out[4 * lane + i], lanes[9 * lane + 5 + i]) << transposed << " row " << lane;
  }
}

constexpr int memory_elements = 64 * 64 + 2 * 64 * 64;
struct alignas(1024) MatrixMemory {
  uint16_t v[memory_elements];
};

// The sums of a product, and then of the same added to them; those of the first, too, are read after a wait.
template <class T, bool registers>
__global__ void wgmma_kernel(float* d, const uint16_t* memory, const uint32_t* lanes) {
  constexpr int n = registers ? 128 : 64;
  auto& s = shared_memory<MatrixMemory>();
  const int t = int(threadIdx.x);
  for (int i = t; i < memory_elements; i += warpgroup_size) s.v[i] = memory[i];
  fence_for_async();
  __syncthreads();
  float sums[n / 8][4] = {};
  uint32_t a[1][4];
  for (int i = 0; i < 4; ++i) a[0][i] = lanes[4 * t + i];
  const uint16_t* b = s.v + 64 * 64;
  for (int step = 0; step < 2; ++step) {
    wgmma_fence(sums, a);
    if constexpr (registers)  // rows 16 to 31 of panes of 32 rows
      wgmma<T, true>(sums, a[0], moved(shared_matrix<true>(b, 32 * 128), 16 * 128), step > 0);
    else  // columns 16 to 31
      wgmma<T, false>(sums, moved(shared_matrix<false>(s.v, 0), 32), moved(shared_matrix<false>(b, 0), 32), step > 0);
    wgmma_commit();
    require(std::isnan(sums[0][0]) && std::isnan(sums[n / 8 - 1][3]), "sums are there before the wait");
    wgmma_wait<0>(sums, a);
    for (int i = 0; i < n / 8; ++i)
      for (int r = 0; r < 4; ++r) d[(step * warpgroup_size + t) * (n / 2) + 4 * i + r] = sums[i][r];
  }
}

template <class T, bool registers>
void expect_wgmma(const std::string& name) {
  auto lines = golden_lines(name, true);
  std::vector<uint16_t> memory(memory_elements, 0xffff);
  const auto fill = [&](const char* what, size_t first) {
    for (const auto& [piece, codes] : lines[what])
      for (size_t i = 0; i < 8; ++i) memory[first + 8 * size_t(piece) + i] = uint16_t(hexadecimal(codes[i]));
  };
  std::vector<uint32_t> lanes(4 * warpgroup_size);
  fill("b", 64 * 64);
  if (!registers) fill("a", 0);
  if (registers)
    for (const auto& [lane, words] : lines["a"])
      for (size_t i = 0; i < 4; ++i) lanes[4 * size_t(lane) + i] = hexadecimal(words[i]);
  constexpr size_t sums = registers ? 64 : 32;
  for (int seed = 1; seed < 4; ++seed) {
    emulator::set_seed(uint64_t(seed));
    std::vector<float> d(2 * warpgroup_size * sums, NAN);
    emulator::launch(wgmma_kernel<T, registers>, dim3(1), dim3(warpgroup_size), sizeof(MatrixMemory), d.data(),
                     memory.data(), lanes.data());
    ASSERT_EQ(lines["d"].size(), 128u);
    for (const auto& [lane, words] : lines["d"])
      for (size_t i = 0; i < sums; ++i) {
        EXPECT_EQ(4 * d[size_t(lane) * sums + i], std::stof(words[i])) << name << " lane " << lane;
        EXPECT_EQ(4 * d[(size_t(lane) + warpgroup_size) * sums + i], 2 * std::stof(words[i])) << name;
      }
  }
}

TEST(HopperInstructions, ProductsOfAWarpgroupEqualTheGoldenVectors) {
  expect_wgmma<bf16, false>("wgmma_matrices_bf16");
  expect_wgmma<fp16, true>("wgmma_registers_fp16");
}

struct BoxStorage {
  alignas(1024) uint16_t v[8 * 64];
  Mbarrier arrived;
};

__global__ void box_kernel(uint16_t* out, const __grid_constant__ TensorMap map, int parities) {
  auto& s = shared_memory<BoxStorage>();
  if (threadIdx.x == 0) {
    init(s.arrived, 2);
    fence_of_init();
  }
  __syncthreads();
  if (threadIdx.x == 32) {
    arrive_expecting(s.arrived, int(sizeof s.v));
    copy_box(s.v, map, 0, 1, 2, s.arrived);
  }
  if (threadIdx.x == 33) arrive(s.arrived);
  for (int parity = 0; parity < parities; ++parity) wait(s.arrived, unsigned(parity));
  for (int i = int(threadIdx.x); i < 8 * 64; i += 64) out[i] = s.v[i];
}

TEST(HopperInstructions, ABoxEqualsTheGoldenVector) {
  alignas(16) uint16_t tensor[5 * 48];
  for (int i = 0; i < 5 * 48; ++i) tensor[i] = uint16_t(i + 1);
  const TensorMap map{
      .data = reinterpret_cast<unsigned char*>(tensor), .size = {24, 2, 5}, .stride = {48, 96}, .box = {64, 1, 8}};
  auto lines = golden_lines("copied_box", true);
  ASSERT_EQ(lines["d"].size(), 64u);
  for (int seed = 1; seed < 20; ++seed) {
    emulator::set_seed(uint64_t(seed));
    std::vector<uint16_t> out(8 * 64, 0xffff);
    emulator::launch(box_kernel, dim3(1), dim3(64), sizeof(BoxStorage), out.data(), map, 1);
    for (const auto& [piece, codes] : lines["d"])
      for (size_t i = 0; i < 8; ++i)
        EXPECT_EQ(out[8 * size_t(piece) + i], hexadecimal(codes[i])) << "piece " << piece << " seed " << seed;
  }
}

// A second phase never ends: the message names the barrier's place.
TEST(HopperInstructions, AWaitForAPhaseThatDoesNotEndIsADeadlock) {
  alignas(16) uint16_t tensor[5 * 48] = {};
  const TensorMap map{
      .data = reinterpret_cast<unsigned char*>(tensor), .size = {24, 2, 5}, .stride = {48, 96}, .box = {64, 1, 8}};
  std::vector<uint16_t> out(8 * 64);
  try {
    emulator::launch(box_kernel, dim3(1), dim3(64), sizeof(BoxStorage), out.data(), map, 2);
    FAIL();
  } catch (const Error& e) {
    const std::string text = e.what();
    EXPECT_NE(text.find("deadlock"), text.npos) << text;
    EXPECT_NE(text.find("mbarrier wait ("), text.npos) << text;
  }
}

}  // namespace
}  // namespace mixtape::cuda::hopper
