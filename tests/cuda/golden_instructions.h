// Kernels that run one instruction each, for golden vectors (tests/golden/instructions) and for what is said of the
// instruction beside them. Written once, as kernels are: nvcc takes them for GPUs, the host's compiler for the
// emulator.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "cuda/device/ldmatrix.h"
#include "cuda/device/mma_m16n8k16.h"
#include "cuda/device/mma_m16n8k32.h"
#include "cuda/device/mma_m16n8k8.h"
#include "cuda/device/stmatrix.h"
#include "cuda/device/tma.h"
#include "cuda/device/wgmma.h"
#include "cuda/launch.h"

namespace mixtape::cuda::golden {

// Lines of words, those of a name behind "NAME NUMBER"; without names all are "".
using Lines = std::map<std::string, std::map<int, std::vector<std::string>>>;
inline Lines lines_of(const std::string& file, bool named) {
  std::ifstream in(std::string(MIXTAPE_GOLDEN) + "/instructions/" + file + ".txt");
  EXPECT_TRUE(in.good()) << file;
  Lines lines;
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
inline uint32_t hexadecimal(const std::string& word) { return uint32_t(std::stoul(word, nullptr, 16)); }

// Of a warp: [32 lanes][columns].
inline std::vector<uint32_t> lanes_of(const std::string& file, size_t columns) {
  std::vector<uint32_t> values;
  const Lines lines = lines_of(file, false);
  for (const auto& [lane, words] : lines.at(""))
    for (const std::string& word : words) values.push_back(hexadecimal(word));
  EXPECT_EQ(values.size(), 32 * columns) << file;
  values.resize(32 * columns);
  return values;
}

// An array on a device, kept until its runtime ends.
template <class T>
T* upload(Runtime& runtime, const std::vector<T>& values) {
  const auto bytes = int64_t(values.size() * sizeof(T));
  auto* at = static_cast<T*>(runtime.allocate(bytes));
  runtime.copy_to_device(at, values.data(), bytes);
  return at;
}
template <class T>
std::vector<T> download(Runtime& runtime, const T* at, size_t count) {
  std::vector<T> values(count);
  runtime.copy_to_host(values.data(), at, int64_t(count * sizeof(T)));
  return values;
}

// Products of a warp. `Multiply` says of which types, and whether the code compiled here may have them.
template <class T>
struct Sixteen {
  using Sum = float;
  static constexpr bool here = true;
  __device__ static void multiply(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    mma_m16n8k16<T>(d, a, b0, b1);
  }
};
struct Tf32 {
  using Sum = float;
  static constexpr bool here = true;
  __device__ static void multiply(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    mma_m16n8k8_tf32(d, a, b0, b1);
  }
};
template <class A, class B>
struct Eight {
  using Sum = float;
  static constexpr bool here = has_fp8_products;
  __device__ static void multiply(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    mma_m16n8k32<A, B>(d, a, b0, b1);
  }
};
struct SignedBytes {
  using Sum = int;
  static constexpr bool here = true;
  __device__ static void multiply(int (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    mma_m16n8k32(d, a, b0, b1);
  }
};

// Columns of `lanes`: a0 .. a3, b0, b1, c0 .. c3, d0 .. d3.
template <class Multiply>
__global__ void mma_kernel(uint32_t* d, const uint32_t* lanes) {
  if constexpr (Multiply::here) {
    const uint32_t* mine = lanes + 14 * lane_id();
    const uint32_t a[4] = {mine[0], mine[1], mine[2], mine[3]};
    typename Multiply::Sum c[4];
    for (int i = 0; i < 4; ++i) memcpy(&c[i], &mine[6 + i], 4);
    Multiply::multiply(c, a, mine[4], mine[5]);
    for (int i = 0; i < 4; ++i) memcpy(&d[4 * lane_id() + i], &c[i], 4);
  }
}

struct EightRows {
  bf16 rows[32 * 8];
};

// Columns: the row that the lane addresses, and its four registers.
template <bool transposed>
__global__ void ldmatrix_kernel(uint32_t* out, const uint32_t* lanes) {
  EightRows& s = shared_memory<EightRows>();
  for (int i = 0; i < 8; ++i) s.rows[8 * lane_id() + i] = from_code<bf16>(uint16_t(8 * lane_id() + i));
  __syncwarp();
  uint32_t registers[4];
  ldmatrix<transposed>(registers, s.rows + 8 * lanes[5 * lane_id()]);
  for (int i = 0; i < 4; ++i) out[4 * lane_id() + i] = registers[i];
}

// Columns: the row that the lane addresses, its four registers, and what row `lane` of shared memory then holds.
template <bool transposed>
__global__ void stmatrix_kernel(uint32_t* out, const uint32_t* lanes) {
  if constexpr (has_bulk_copies) {
    EightRows& s = shared_memory<EightRows>();
    const uint32_t* mine = lanes + 9 * lane_id();
    const uint32_t registers[4] = {mine[1], mine[2], mine[3], mine[4]};
    stmatrix<transposed>(s.rows + 8 * mine[0], registers);
    __syncwarp();
    for (int i = 0; i < 4; ++i)
      out[4 * lane_id() + i] =
          uint32_t(s.rows[8 * lane_id() + 2 * i + 1].code) << 16 | s.rows[8 * lane_id() + 2 * i].code;
  }
}

constexpr int memory_elements = 64 * 64 + 2 * 64 * 64;
struct alignas(1024) MatrixMemory {
  uint16_t v[memory_elements];
};

// What a warpgroup does with its sums while a product that will change them is under way: nothing.
struct LooksAway {
  template <int N>
  __device__ static void look(const float (&)[N][4]) {}
};

// The sums of a product, and then of the same added to them; those of the first, too, are read after a wait.
template <class T, bool registers, class Meanwhile = LooksAway>
__global__ void wgmma_kernel(float* d, const uint16_t* memory, const uint32_t* lanes) {
  if constexpr (has_warpgroups) {
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
      Meanwhile::look(sums);
      wgmma_wait<0>(sums, a);
      for (int i = 0; i < n / 8; ++i)
        for (int r = 0; r < 4; ++r) d[(step * warpgroup_size + t) * (n / 2) + 4 * i + r] = sums[i][r];
    }
  }
}

struct BoxStorage {
  alignas(1024) uint16_t v[8 * 64];
  Mbarrier arrived;
};

// A box of head 1 from row 2 on, for two threads to announce. More phases than one are never there.
template <int phases>
__global__ void box_kernel(uint16_t* out, const __grid_constant__ TensorMap map) {
  if constexpr (has_bulk_copies) {
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
    for (int phase = 0; phase < phases; ++phase) wait(s.arrived, unsigned(phase));
    for (int i = int(threadIdx.x); i < 8 * 64; i += 64) out[i] = s.v[i];
  }
}

// [5 rows][2 heads of 24], counting up from 1.
inline Tensor numbered_tensor(Runtime& runtime) {
  std::vector<uint16_t> codes(5 * 48);
  for (size_t i = 0; i < codes.size(); ++i) codes[i] = uint16_t(i + 1);
  return Tensor(reinterpret_cast<std::byte*>(upload(runtime, codes)), {5, 48}, DType::bf16);
}

}  // namespace mixtape::cuda::golden
