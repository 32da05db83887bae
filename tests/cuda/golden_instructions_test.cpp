// The instructions of cuda/device against golden vectors that were made from NVIDIA's tables by other means
// (tests/golden/instructions/make.py): their twins here, and the hardware where tests/gpu compiles this file for a GPU.
// So a GPU confirms what the kernels' tests assume.
#include "tests/cuda/golden_instructions.h"

#include <cmath>
#include <utility>

#ifndef __CUDACC__
#include "cuda/emulator/device.h"
#endif

namespace mixtape::cuda {
namespace {

using namespace golden;

class GoldenInstructions : public testing::Test {
 protected:
  // `test(runtime)` on the GPU, if it has what the test needs; or on the emulated one, in several orders of its
  // threads.
  template <class Test>
  void on_device(int least_capability, const Test& test, int most_capability = 1000) {
#ifdef __CUDACC__
    Runtime runtime(0);
    const int capability = runtime.compute_capability();
    if (capability < least_capability || capability > most_capability)
      GTEST_SKIP() << "the GPU's compute capability is " << capability << ", the instruction came with "
                   << least_capability;
    test(runtime);
#else
    const int capability = std::min(most_capability, 100);
    ASSERT_GE(capability, least_capability);
    const auto before = std::exchange(emulator::device(), {.compute_capability = capability});
    for (uint64_t seed = 1; seed < 6; ++seed) {
      emulator::set_seed(seed);
      Runtime runtime(0);
      test(runtime);
    }
    emulator::device() = before;
#endif
  }
};

std::vector<uint32_t> run_warp(Runtime& runtime, void (*kernel)(uint32_t*, const uint32_t*),
                               const std::vector<uint32_t>& lanes) {
  uint32_t* out = upload(runtime, std::vector<uint32_t>(128, 0xdeadbeef));
  launch(runtime, kernel, dim3(1), dim3(32), sizeof(EightRows), out, upload(runtime, lanes));
  return download(runtime, out, 128);
}

template <class Multiply>
void expect_product(Runtime& runtime, const std::string& name) {
  const auto lanes = lanes_of(name, 14);
  const auto d = run_warp(runtime, mma_kernel<Multiply>, lanes);
  for (size_t lane = 0; lane < 32; ++lane)
    for (size_t i = 0; i < 4; ++i) {
      typename Multiply::Sum expected, got;  // 0 may have either sign
      std::memcpy(&expected, &lanes[14 * lane + 10 + i], 4);
      std::memcpy(&got, &d[4 * lane + i], 4);
      EXPECT_EQ(got, expected) << name << " lane " << lane;
    }
}

TEST_F(GoldenInstructions, ProductsOfAWarp) {
  on_device(80, [](Runtime& runtime) {
    expect_product<Sixteen<bf16>>(runtime, "mma_m16n8k16_bf16");
    expect_product<Sixteen<fp16>>(runtime, "mma_m16n8k16_fp16");
    expect_product<Tf32>(runtime, "mma_m16n8k8_tf32");
    expect_product<SignedBytes>(runtime, "mma_m16n8k32_int8");
  });
}

TEST_F(GoldenInstructions, ProductsOfFp8) {
  on_device(89, [](Runtime& runtime) {
    expect_product<Eight<e4m3, e4m3>>(runtime, "mma_m16n8k32_e4m3_e4m3");
    expect_product<Eight<e4m3, e5m2>>(runtime, "mma_m16n8k32_e4m3_e5m2");
    expect_product<Eight<e5m2, e4m3>>(runtime, "mma_m16n8k32_e5m2_e4m3");
    expect_product<Eight<e5m2, e5m2>>(runtime, "mma_m16n8k32_e5m2_e5m2");
  });
}

// Columns [first, first + 4) of `lanes` are what each lane is to have in the end.
void expect_registers(const std::vector<uint32_t>& out, const std::vector<uint32_t>& lanes, size_t columns,
                      size_t first) {
  for (size_t lane = 0; lane < 32; ++lane)
    for (size_t i = 0; i < 4; ++i) EXPECT_EQ(out[4 * lane + i], lanes[columns * lane + first + i]) << "lane " << lane;
}

TEST_F(GoldenInstructions, MatrixLoads) {
  on_device(80, [](Runtime& runtime) {
    const auto straight = lanes_of("ldmatrix", 5), transposed = lanes_of("ldmatrix_transposed", 5);
    expect_registers(run_warp(runtime, ldmatrix_kernel<false>, straight), straight, 5, 1);
    expect_registers(run_warp(runtime, ldmatrix_kernel<true>, transposed), transposed, 5, 1);
  });
}

TEST_F(GoldenInstructions, MatrixStores) {
  on_device(90, [](Runtime& runtime) {
    const auto straight = lanes_of("stmatrix", 9), transposed = lanes_of("stmatrix_transposed", 9);
    expect_registers(run_warp(runtime, stmatrix_kernel<false>, straight), straight, 9, 5);
    expect_registers(run_warp(runtime, stmatrix_kernel<true>, transposed), transposed, 9, 5);
  });
}

template <class T, bool registers>
void expect_product_of_warpgroup(Runtime& runtime, const std::string& name) {
  Lines lines = lines_of(name, true);
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
  constexpr size_t sums = registers ? 64 : 32, all = 2 * warpgroup_size * sums;
  float* out = upload(runtime, std::vector<float>(all, NAN));
  launch(runtime, wgmma_kernel<T, registers>, dim3(1), dim3(warpgroup_size), sizeof(MatrixMemory), out,
         upload(runtime, memory), upload(runtime, lanes));
  const std::vector<float> d = download(runtime, out, all);
  ASSERT_EQ(lines["d"].size(), 128u);
  for (const auto& [lane, words] : lines["d"])
    for (size_t i = 0; i < sums; ++i) {
      EXPECT_EQ(4 * d[size_t(lane) * sums + i], std::stof(words[i])) << name << " lane " << lane;
      EXPECT_EQ(4 * d[(size_t(lane) + warpgroup_size) * sums + i], 2 * std::stof(words[i])) << name;
    }
}

TEST_F(GoldenInstructions, ProductsOfAWarpgroup) {
  on_device(
      90,
      [](Runtime& runtime) {
        expect_product_of_warpgroup<bf16, false>(runtime, "wgmma_matrices_bf16");
        expect_product_of_warpgroup<fp16, true>(runtime, "wgmma_registers_fp16");
      },
      90);
}

TEST_F(GoldenInstructions, ABoxOfATensor) {
  on_device(90, [](Runtime& runtime) {
    const TensorMap map = tensor_map(numbered_tensor(runtime), 24, 8);
    uint16_t* out = upload(runtime, std::vector<uint16_t>(8 * 64, 0xffff));
    launch(runtime, box_kernel<1>, dim3(1), dim3(64), sizeof(BoxStorage), out, map);
    const auto box = download(runtime, out, 8 * 64);
    const Lines lines = lines_of("copied_box", true);
    ASSERT_EQ(lines.at("d").size(), 64u);
    for (const auto& [piece, codes] : lines.at("d"))
      for (size_t i = 0; i < 8; ++i) EXPECT_EQ(box[8 * size_t(piece) + i], hexadecimal(codes[i])) << "piece " << piece;
  });
}

}  // namespace
}  // namespace mixtape::cuda
