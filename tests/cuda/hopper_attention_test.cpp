// Attention's kernels for Hopper, beyond what the harness shows of them: which tiles are visited, that nothing of other
// documents gets in, and that they give what the other path gives, bit for bit the same each time.
#include <cmath>

#include "core/ops/attention.h"
#include "tests/cuda/device.h"

namespace mixtape {
namespace {

// What sanitizers look for shows in few cases, and each takes them ten times as long.

struct HopperCase {
  int64_t rows, heads, kv_heads, head_dim;
  std::vector<int32_t> segments;
  AttentionSpec spec = {};
  DType type = DType::bf16;
  bool alibi = false;
  double rest = 0;  // what rows in no segment hold

  int64_t q_cols() const { return heads * head_dim; }
  int64_t kv_cols() const { return kv_heads * head_dim; }
};

struct HopperRun {
  Tensor out, lse, dqkv;
  int64_t products = 0, backward_products = 0;
};

void fill_rest(const Device& d, const HopperCase& c, const Tensor& t) {
  std::vector<bool> inside(size_t(c.rows));
  for (size_t s = 0; s < c.segments.size(); s += 4)
    for (int32_t r = 0; r < c.segments[s + 1]; ++r) inside[size_t(c.segments[s] + r)] = true;
  dispatch<fp16, bf16>(c.type, "test", [&]<class T>() {
    auto values = d.values<T>(t);
    for (size_t i = 0; i < values.size(); ++i)
      if (!inside[i / size_t(t.cols())]) values[i] = T(float(c.rest));
    d->copy_from_host(t, values.data());
  });
}

HopperRun run_attention(Device& d, HopperCase c) {
  c.spec.n_heads = c.heads, c.spec.n_kv_heads = c.kv_heads, c.spec.head_dim = c.head_dim;
  c.spec.scale = 1 / std::sqrt(float(c.head_dim));
  const int64_t q = c.q_cols(), kv = c.kv_cols(), n = int64_t(c.segments.size()) / 4;
  const Tensor qkv = d.normal({c.rows, q + 2 * kv}, c.type, 1), dout = d.normal({c.rows, q}, c.type, 2);
  fill_rest(d, c, qkv);
  fill_rest(d, c, dout);
  const Tensor segments = d.upload(c.segments, {n, 4}), count = d.upload(std::vector<int32_t>{int32_t(n)});
  Tensor slopes;
  if (c.alibi) {
    std::vector<float> values(size_t(c.heads));
    alibi_slopes(values.data(), c.heads);
    slopes = d.upload(values);
  }
  const StepState* state = d.upload_state({.philox = philox_key(7)});
  HopperRun run{d.make({c.rows, q}, c.type), d.make({c.heads, c.rows}, DType::f32),
                d.make({c.rows, q + 2 * kv}, c.type)};
  const auto before = emulator::counts();
  d->attention().attention({.out = run.out,
                            .lse = run.lse,
                            .q = qkv.columns(0, q),
                            .k = qkv.columns(q, kv),
                            .v = qkv.columns(q + kv, kv),
                            .segments = segments,
                            .n_segments = count,
                            .slopes = slopes,
                            .spec = c.spec,
                            .site = 3,
                            .state = state});
  const auto forward = emulator::counts();
  d->attention().attention_backward({.dq = {run.dqkv.columns(0, q), Write::overwrite},
                                     .dk = {run.dqkv.columns(q, kv), Write::overwrite},
                                     .dv = {run.dqkv.columns(q + kv, kv), Write::overwrite},
                                     .dout = dout,
                                     .out = run.out,
                                     .lse = run.lse,
                                     .q = qkv.columns(0, q),
                                     .k = qkv.columns(q, kv),
                                     .v = qkv.columns(q + kv, kv),
                                     .segments = segments,
                                     .n_segments = count,
                                     .slopes = slopes,
                                     .spec = c.spec,
                                     .site = 3,
                                     .state = state});
  run.products = forward.wgmma - before.wgmma;
  run.backward_products = emulator::counts().wgmma - forward.wgmma;
  return run;
}

std::vector<int32_t> whole_sequence(int32_t rows) { return {0, rows, 0, rows}; }

// A product is m64nNk16 of a warpgroup, four quarters of it. Two warpgroups: D / 16 for the scores of 128 keys, 8 for
// their weights times the values.
int64_t of_a_forward_tile(int64_t head_dim) { return 8 * ((head_dim <= 64 ? 4 : 8) + 8); }
// 128 queries and 64 keys, or 128 keys and 64 queries: D / 16 each for scores and dout . v, 4 for each gradient.
int64_t of_a_dq_tile(int64_t head_dim) { return 8 * (2 * (head_dim <= 64 ? 4 : 8) + 4); }
int64_t of_a_dkv_tile(int64_t head_dim) { return 8 * (2 * (head_dim <= 64 ? 4 : 8) + 8); }

TEST(HopperAttention, CausalTilesBeyondTheDiagonalAreNotVisited) {
  Device d = emulated_hopper();
  for (const int64_t rows : {1, 64, 128, 129, 320}) {
    for (const int64_t head_dim : {64, 128}) {
      if ((head_dim == 128 || sanitized) && rows > 129) continue;
      const HopperRun run = run_attention(d, {rows, 2, 1, head_dim, whole_sequence(int32_t(rows))});
      int64_t forward = 0, dq = 0, dkv = 0;
      for (int64_t first = 0; first < rows; first += 128) {
        const int64_t last = std::min(first + 128, rows) - 1;
        forward += last / 128 + 1;  // keys from 0 to the last query
        dq += last / 64 + 1;
        dkv += (rows - 1) / 64 - first / 64 + 1;  // queries from the first key on
      }
      EXPECT_EQ(run.products, 2 * forward * of_a_forward_tile(head_dim)) << rows;
      EXPECT_EQ(run.backward_products, 2 * (dq * of_a_dq_tile(head_dim) + dkv * of_a_dkv_tile(head_dim))) << rows;
    }
  }
}

TEST(HopperAttention, TilesOfOtherDocumentsAndOutsideTheWindowAreNotVisited) {
  Device d = emulated_hopper();
  const std::vector<int32_t> documents = {0, 64, 0, 64, 64, 130, 64, 130, 200, 5, 200, 5};
  EXPECT_EQ(run_attention(d, {210, 1, 1, 64, documents, {.causal = false}}).products,
            (1 + 4 + 1) * of_a_forward_tile(64));
  EXPECT_EQ(run_attention(d, {210, 1, 1, 64, documents}).products, (1 + 3 + 1) * of_a_forward_tile(64));
  // Queries 128 t .. 128 t + 127 see keys from 128 t - 127 on.
  EXPECT_EQ(run_attention(d, {512, 1, 1, 64, whole_sequence(512), {.window = 128}}).products,
            (4 + 3) * of_a_forward_tile(64));
  EXPECT_EQ(run_attention(d, {100, 1, 1, 64, {0, 30, 0, 0}, {.causal = false}}).products, 0);
}

TEST(HopperAttention, OtherGpusAndShapesTakeOtherPaths) {
  Device hopper = emulated_hopper(), ampere = emulated(), blackwell = emulated(1, {.compute_capability = 100});
  const HopperCase c{70, 1, 1, 64, whole_sequence(70)};
  EXPECT_GT(run_attention(hopper, c).products, 0);
  EXPECT_EQ(run_attention(ampere, c).products, 0);
  EXPECT_EQ(run_attention(blackwell, c).products, 0);
  EXPECT_EQ(run_attention(hopper, {70, 1, 1, 12, whole_sequence(70)}).products, 0);   // no whole 16 bytes
  EXPECT_EQ(run_attention(hopper, {70, 1, 1, 136, whole_sequence(70)}).products, 0);  // too wide
}

// Rows that belong to no segment, between documents and behind them, hold NaN: nothing of it comes through.
TEST(HopperAttention, NothingOfOtherRowsGetsIn) {
  for (const bool causal : {true, false}) {
    if (sanitized && causal) continue;
    HopperCase c{260, 2, 1, 64, {0, 3, 0, 3, 5, 150, 5, 150, 170, 70, 170, 70}, {.causal = causal}};
    Device d = emulated_hopper();
    const HopperRun clean = run_attention(d, c);
    c.rest = NAN;
    const HopperRun run = run_attention(d, c);
    EXPECT_EQ(d.bits(run.out), d.bits(clean.out));
    EXPECT_EQ(d.bits(run.dqkv), d.bits(clean.dqkv));
  }
}

void expect_close(const Device& a, const Tensor& x, const Device& b, const Tensor& y, DType type, double tolerance) {
  dispatch<float, fp16, bf16>(type, "test", [&]<class T>() {
    const auto left = a.values<T>(x), right = b.values<T>(y);
    double most = 0;
    for (const T v : right)
      if (std::isfinite(float(v))) most = std::max(most, std::abs(double(float(v))));
    for (size_t i = 0; i < left.size(); ++i) {
      const float l = float(left[i]), r = float(right[i]);
      if (l == r || (std::isnan(l) && std::isnan(r))) continue;  // -inf; lse of rows in no segment is not written
      EXPECT_NEAR(l, r, tolerance * most) << i;
    }
  });
}

// Everything at once, in both widths of head and both types.
TEST(HopperAttention, GivesWhatTheOtherPathGives) {
  const std::vector<int32_t> documents = {0, 3, 0, 3, 3, 161, 3, 161, 170, 90, 170, 90};
  for (HopperCase c : {HopperCase{264, 2, 1, 64, documents, {.dropout_threshold = 30}},
                       HopperCase{264, 2, 2, 128, documents, {.causal = false, .window = 70}, DType::f16},
                       HopperCase{264, 2, 1, 96, documents, {.dropout_threshold = 30}, DType::bf16, true},
                       HopperCase{200, 2, 1, 64, {0, 200, 0, 200}, {.causal = false, .dropout_threshold = 99}},
                       HopperCase{200, 1, 1, 128, {100, 100, 0, 200}}, HopperCase{200, 1, 1, 64, {0, 200, 150, 50}}}) {
    if (sanitized && c.segments != documents) continue;
    Device hopper = emulated_hopper(), ampere = emulated();
    const HopperRun x = run_attention(hopper, c), y = run_attention(ampere, c);
    ASSERT_GT(x.products, 0);
    const double unit = c.type == DType::bf16 ? 0.02 : 0.003;
    expect_close(hopper, x.lse, ampere, y.lse, DType::f32, 1e-4);
    expect_close(hopper, x.out, ampere, y.out, c.type, unit);
    expect_close(hopper, x.dqkv, ampere, y.dqkv, c.type, unit);
  }
}

// How many multiprocessors share the tiles, and the order of threads, are not in the bits.
TEST(HopperAttention, TheSameBitsOnAnyNumberOfMultiprocessors) {
  const HopperCase c{300, 2, 1, 64, {0, 130, 0, 130, 130, 170, 130, 170}};
  Device one = emulated_hopper(1, 1), many = emulated_hopper(2, 132);
  const HopperRun x = run_attention(one, c), y = run_attention(many, c);
  EXPECT_EQ(one.bits(x.out), many.bits(y.out));
  EXPECT_EQ(one.bits(x.dqkv), many.bits(y.dqkv));
}

}  // namespace
}  // namespace mixtape
