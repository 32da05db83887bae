// What the harness does not show of the CUDA back end's attention: which kernels ran, which tiles were visited, and
// lse. Tiles are counted by the products on tensor cores that the emulator saw.
#include <cmath>

#include "core/ops/attention.h"
#include "tests/cuda/device.h"

namespace mixtape {
namespace {

struct Shape4 {
  int64_t rows, heads, kv_heads, head_dim;
};

class CudaAttentionTest : public testing::Test {
 protected:
  // Runs attention on normal numbers and returns how many products it took.
  int64_t products(const Shape4& s, const std::vector<int32_t>& segments, AttentionSpec spec,
                   DType type = DType::bf16) {
    spec.n_heads = s.heads, spec.n_kv_heads = s.kv_heads, spec.head_dim = s.head_dim;
    spec.scale = 1 / std::sqrt(float(s.head_dim));
    const int64_t q = s.heads * s.head_dim, kv = s.kv_heads * s.head_dim, n = int64_t(segments.size()) / 4;
    const Tensor qkv = d.normal({s.rows, q + 2 * kv}, type, 1);
    out = d.make({s.rows, q}, type);
    lse = d.make({s.heads, s.rows}, DType::f32);
    const int64_t before = emulator::counts().mma;
    d->attention().attention({.out = out,
                              .lse = lse,
                              .q = qkv.columns(0, q),
                              .k = qkv.columns(q, kv),
                              .v = qkv.columns(q + kv, kv),
                              .segments = d.upload(segments, {n, 4}),
                              .n_segments = d.upload(std::vector<int32_t>{int32_t(n)}),
                              .spec = spec});
    return emulator::counts().mma - before;
  }
  // Of one pair of tiles of 64 queries and 64 keys: 4 warps, two products, D / 16 x 8 instructions each.
  static int64_t of_a_tile(int64_t head_dim) { return head_dim <= 64 ? 256 : 512; }

  Device d = emulated();
  Tensor out, lse;
};

TEST_F(CudaAttentionTest, CausalTilesBeyondTheDiagonalAreNotVisited) {
  for (const int64_t rows : {1, 64, 65, 200, 320}) {
    const int64_t tiles = (rows + 63) / 64;
    EXPECT_EQ(products({rows, 2, 1, 64}, {0, int32_t(rows), 0, int32_t(rows)}, {}), 2 * tiles * (tiles + 1) / 2 * 256);
    EXPECT_EQ(products({rows, 1, 1, 16}, {0, int32_t(rows), 0, int32_t(rows)}, {.causal = false}), tiles * tiles * 256);
  }
  // Wide heads take 32 keys at a time.
  EXPECT_EQ(products({130, 1, 1, 128}, {0, 130, 0, 130}, {}), (2 + 4 + 5) * of_a_tile(128) / 2);
}

TEST_F(CudaAttentionTest, AWindowBoundsTheTilesOfAQuery) {
  // Queries 64 t .. 64 t + 63 see keys from 64 t - 63 on: this tile and the one before.
  EXPECT_EQ(products({640, 1, 1, 64}, {0, 640, 0, 640}, {.window = 64}), (10 + 9) * 256);
}

// Documents in one row cost what they cost apart.
TEST_F(CudaAttentionTest, TilesOfOtherDocumentsAreNotVisited) {
  EXPECT_EQ(products({320, 1, 1, 64}, {0, 64, 0, 64, 64, 64, 64, 64, 128, 64, 128, 64, 192, 128, 192, 128}, {}),
            (3 + 3) * 256);
  EXPECT_EQ(products({100, 1, 1, 64}, {0, 30, 0, 30, 30, 70, 30, 70}, {.causal = false}), (1 + 4) * 256);
  EXPECT_EQ(products({100, 1, 1, 64}, {0, 30, 0, 0}, {.causal = false}), 0);
}

TEST_F(CudaAttentionTest, OtherShapesTakeTheGeneralPath) {
  EXPECT_EQ(products({70, 1, 1, 12}, {0, 70, 0, 70}, {}), 0);   // rows of no whole 16 bytes
  EXPECT_EQ(products({70, 1, 1, 136}, {0, 70, 0, 70}, {}), 0);  // too wide for the registers
  EXPECT_EQ(products({70, 1, 1, 64}, {0, 70, 0, 70}, {}, DType::f32), 0);
  EXPECT_THROW(products({3, 1, 1, 264}, {0, 3, 0, 3}, {}), Error);
}

// Both paths, at the same numbers: lse of float32 inputs that are bf16 numbers.
TEST_F(CudaAttentionTest, BothPathsGiveTheSameLogSumExp) {
  const std::vector<int32_t> segments = {0, 70, 0, 70, 70, 60, 70, 60};
  ASSERT_GT(products({130, 2, 2, 32}, segments, {}), 0);
  const auto flash = d.values<float>(lse);
  const Tensor wide = d.make({130, 3 * 64}, DType::f32);
  d->cast().convert({.y = {wide, Write::overwrite}, .x = d.normal({130, 3 * 64}, DType::bf16, 1)});
  AttentionSpec spec{.n_heads = 2, .n_kv_heads = 2, .head_dim = 32, .scale = 1 / std::sqrt(32.f)};
  d->attention().attention({.out = d.make({130, 64}, DType::f32),
                            .lse = lse,
                            .q = wide.columns(0, 64),
                            .k = wide.columns(64, 64),
                            .v = wide.columns(128, 64),
                            .segments = d.upload(segments, {2, 4}),
                            .n_segments = d.upload(std::vector<int32_t>{2}),
                            .spec = spec});
  const auto tiled = d.values<float>(lse);
  for (size_t i = 0; i < tiled.size(); ++i) EXPECT_NEAR(flash[i], tiled[i], 1e-4) << i;
}

// A dry run takes the memory that the run takes.
TEST_F(CudaAttentionTest, PlansItsWorkspace) {
  Arena plan;
  int64_t peaks[2];
  const auto run = [&](Device& device) {
    const int64_t rows = 100;
    const Tensor q = device.make({rows, 64}, DType::bf16), kv = device.make({rows, 128}, DType::bf16);
    const Tensor out = device.make({rows, 64}, DType::bf16), lse = device.make({2, rows}, DType::f32);
    const Tensor segments = device.make({rows, 4}, DType::i32), count = device.make({1}, DType::i32);
    const Tensor dq = device.make({rows, 64}, DType::bf16), dkv = device.make({rows, 128}, DType::bf16);
    for (const Tensor& t : {q, kv, out, segments, count}) device->zero(t);
    const AttentionSpec spec{.n_heads = 2, .n_kv_heads = 2, .head_dim = 32, .scale = 1};
    device->attention().attention({.out = out,
                                   .lse = lse,
                                   .q = q,
                                   .k = kv.columns(0, 64),
                                   .v = kv.columns(64, 64),
                                   .segments = segments,
                                   .n_segments = count,
                                   .spec = spec});
    device->attention().attention_backward({.dq = {dq, Write::overwrite},
                                            .dk = {dkv.columns(0, 64), Write::overwrite},
                                            .dv = {dkv.columns(64, 64), Write::overwrite},
                                            .dout = q,
                                            .out = out,
                                            .lse = lse,
                                            .q = q,
                                            .k = kv.columns(0, 64),
                                            .v = kv.columns(64, 64),
                                            .segments = segments,
                                            .n_segments = count,
                                            .spec = spec});
  };
  d->bind(plan);
  run(d);
  peaks[0] = plan.peak();
  HostMemory memory(int64_t(1) << 26);
  Arena real(memory.data(), memory.bytes());
  d->bind(real);
  run(d);
  peaks[1] = real.peak();
  d->bind(d.arena());
  EXPECT_EQ(peaks[0], peaks[1]);
  EXPECT_EQ(plan.requests(), real.requests());
}

}  // namespace
}  // namespace mixtape
