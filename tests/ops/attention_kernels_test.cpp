// The attention kernels called directly: bits that depend on a row's own segment alone, what is skipped, what is
// refused.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "core/base/philox.h"
#include "core/cpu/attention/problem.h"
#include "core/ops/attention.h"
#include "tests/ops/attention_reference.h"
#include "tests/support/op_test.h"

namespace mixtape {
namespace {

using flash::Segment;

// Calls of the kernels themselves, on memory that starts as NaN.
class AttentionKernelTest : public testing::Test {
 protected:
  AttentionKernelTest() : memory_(int64_t(64) << 20), arena_(memory_.data(), memory_.bytes()) {
    backend_.bind(arena_);
    std::fill_n(reinterpret_cast<float*>(memory_.data()), memory_.bytes() / 4, NAN);
  }

  Tensor filled(Shape shape, uint64_t seed) {
    const Tensor t = backend_.make(shape, DType::f32);
    for (int64_t i = 0; i < t.count(); ++i) {
      const auto bits = philox(philox_key(seed), i, 0, Purpose::test);
      t.data<float>()[i] = mixtape::normal(bits[0], bits[1]);
    }
    return t;
  }
  Tensor blank(Shape shape) { return backend_.make(shape, DType::f32); }
  // A call over q, k, v of their own; `spec.scale` is chosen.
  Attention call(const Tensor& q, const Tensor& k, const Tensor& v, const std::vector<Segment>& segments,
                 AttentionSpec spec) {
    spec.scale = 1 / std::sqrt(float(spec.head_dim));
    for (const Segment& s : segments) spec.max_q_len = std::max<int64_t>(spec.max_q_len, s.q_len);
    const Tensor list = backend_.make({int64_t(segments.size()), 4}, DType::i32);
    std::memcpy(list.raw(), segments.data(), list.bytes());
    const Tensor count = backend_.make({1}, DType::i32);
    *count.data<int32_t>() = int32_t(segments.size());
    return {.out = blank(q.shape()),
            .lse = blank({spec.n_heads, q.rows()}),
            .q = q,
            .k = k,
            .v = v,
            .segments = list,
            .n_segments = count,
            .spec = spec,
            .state = &test_state()};
  }
  AttentionBackward backward_of(const Attention& a, const Tensor& dout) {
    const auto gradient = [&](const Tensor& t) { return Grad{blank(t.shape()), Write::overwrite}; };
    return {.dq = gradient(a.q),
            .dk = gradient(a.k),
            .dv = gradient(a.v),
            .dout = dout,
            .out = a.out,
            .lse = a.lse,
            .q = a.q,
            .k = a.k,
            .v = a.v,
            .segments = a.segments,
            .n_segments = a.n_segments,
            .relative = a.relative,
            .spec = a.spec,
            .state = a.state};
  }
  static std::vector<float> values(const Tensor& t) { return {t.data<float>(), t.data<float>() + t.count()}; }
  static std::vector<uint32_t> bits(const Tensor& t, int64_t row, int64_t count) {
    std::vector<uint32_t> b(count * t.cols());
    std::memcpy(b.data(), t.raw() + row * t.cols() * 4, b.size() * 4);
    return b;
  }

  CpuBackend backend_;
  HostMemory memory_;
  Arena arena_;
};

TEST_F(AttentionKernelTest, RowsHaveTheBitsThatTheirSegmentAloneGives) {
  const AttentionSpec spec{.n_heads = 4, .n_kv_heads = 2, .head_dim = 24, .window = 90};
  const Tensor q = filled({400, 96}, 1), k = filled({400, 48}, 2), v = filled({400, 48}, 3),
               dout = filled({400, 96}, 4);
  const std::vector<Segment> all{{0, 37, 0, 37}, {37, 150, 37, 150}, {187, 1, 187, 1}, {190, 200, 190, 200}};
  const Attention together = call(q, k, v, all, spec);
  backend_.attention().attention(together);
  const AttentionBackward gradients = backward_of(together, dout);
  backend_.attention().attention_backward(gradients);
  for (const Segment& s : all) {
    const Attention alone = call(q.slice(s.q_start, s.q_len), k.slice(s.k_start, s.k_len), v.slice(s.k_start, s.k_len),
                                 {{0, s.q_len, 0, s.k_len}}, spec);
    backend_.attention().attention(alone);
    EXPECT_EQ(bits(together.out, s.q_start, s.q_len), bits(alone.out, 0, s.q_len)) << s.q_start;
    const AttentionBackward own = backward_of(alone, dout.slice(s.q_start, s.q_len));
    backend_.attention().attention_backward(own);
    EXPECT_EQ(bits(gradients.dq.tensor, s.q_start, s.q_len), bits(own.dq.tensor, 0, s.q_len)) << s.q_start;
    EXPECT_EQ(bits(gradients.dk.tensor, s.k_start, s.k_len), bits(own.dk.tensor, 0, s.k_len)) << s.q_start;
    EXPECT_EQ(bits(gradients.dv.tensor, s.k_start, s.k_len), bits(own.dv.tensor, 0, s.k_len)) << s.q_start;
  }
}

TEST_F(AttentionKernelTest, ATokenGivesTheLastRowOfItsPrefix) {
  const AttentionSpec spec{.n_heads = 6, .n_kv_heads = 2, .head_dim = 40};
  const Tensor q = filled({333, 240}, 1), k = filled({333, 80}, 2), v = filled({333, 80}, 3);
  for (int32_t length : {1, 5, 63, 64, 65, 200, 333}) {
    const Attention prefix = call(q, k, v, {{0, length, 0, length}}, spec);
    const Attention token = call(q.slice(length - 1, 1), k, v, {{0, 1, 0, length}}, spec);
    backend_.attention().attention(prefix);
    backend_.attention().attention(token);
    for (int64_t c = 0; c < 240; ++c)
      EXPECT_NEAR(token.out.data<float>()[c], prefix.out.data<float>()[(length - 1) * 240 + c],
                  tolerance(DType::f32, 1, length, 1.0));
    for (int64_t h = 0; h < 6; ++h)
      EXPECT_NEAR(token.lse.data<float>()[h], prefix.lse.data<float>()[h * 333 + length - 1],
                  tolerance(DType::f32, 1, length, 8.0));
  }
}

TEST_F(AttentionKernelTest, ATokenGivesTheLastRowOfItsPrefixWithRelativePositions) {
  const AttentionSpec spec{
      .n_heads = 4, .n_kv_heads = 2, .head_dim = 8, .relative_buckets = 32, .relative_distance = 128};
  const Tensor q = filled({333, 32}, 1), k = filled({333, 16}, 2), v = filled({333, 16}, 3), table = filled({32, 4}, 4);
  for (int32_t length : {1, 5, 64, 65, 200, 333}) {
    Attention prefix = call(q, k, v, {{0, length, 0, length}}, spec);
    Attention token = call(q.slice(length - 1, 1), k, v, {{0, 1, 0, length}}, spec);
    prefix.relative = token.relative = table;
    backend_.attention().attention(prefix);
    backend_.attention().attention(token);
    for (int64_t c = 0; c < 32; ++c)
      EXPECT_NEAR(token.out.data<float>()[c], prefix.out.data<float>()[(length - 1) * 32 + c],
                  tolerance(DType::f32, 1, length, 1.0));
  }
}

// Gradients of the table alone, and of all but the table, are those of all together.
TEST_F(AttentionKernelTest, TheTablesGradientMayBeWantedAlone) {
  const AttentionSpec spec{
      .n_heads = 3, .n_kv_heads = 3, .head_dim = 8, .causal = false, .relative_buckets = 8, .relative_distance = 30};
  const Tensor q = filled({100, 24}, 1), k = filled({100, 24}, 2), v = filled({100, 24}, 3),
               dout = filled({100, 24}, 5);
  Attention a = call(q, k, v, {{0, 70, 0, 70}, {70, 25, 70, 25}}, spec);
  a.relative = filled({8, 3}, 4);
  backend_.attention().attention(a);
  AttentionBackward b = backward_of(a, dout);
  b.drelative = {blank({8, 3}), Write::overwrite};
  backend_.attention().attention_backward(b);
  AttentionBackward alone = b, without = backward_of(a, dout);
  alone.dq = alone.dk = alone.dv = {};
  alone.drelative = {blank({8, 3}), Write::overwrite};
  backend_.attention().attention_backward(alone);
  backend_.attention().attention_backward(without);
  EXPECT_EQ(values(alone.drelative.tensor), values(b.drelative.tensor));
  EXPECT_EQ(values(without.dq.tensor), values(b.dq.tensor));
  EXPECT_EQ(values(without.dk.tensor), values(b.dk.tensor));
  // No segments: nothing flows.
  *b.n_segments.data<int32_t>() = 0;
  backend_.attention().attention_backward(b);
  EXPECT_EQ(values(b.drelative.tensor), std::vector<float>(24, 0.f));
}

// q, k and v of different row counts, the log of the sum, and gradients that are stored, added or left out.
TEST_F(AttentionKernelTest, CrossAttentionAndModesOfWriting) {
  const AttentionSpec spec{.n_heads = 2, .n_kv_heads = 2, .head_dim = 16, .causal = false};
  const Tensor q = filled({90, 32}, 1), k = filled({170, 32}, 2), v = filled({170, 32}, 3), dout = filled({90, 32}, 4);
  const Attention a = call(q, k, v, {{0, 50, 0, 20}, {50, 35, 30, 140}}, spec);
  backend_.attention().attention(a);
  const auto array = [](const Tensor& t) {
    Array x(t.shape());
    for (int64_t i = 0; i < t.count(); ++i) x[i] = t.data<float>()[i];
    return x;
  };
  const Reference want =
      attention_reference(array(q), array(k), array(v), {{0, 50, 0, 20}, {50, 35, 30, 140}}, {}, a.spec);
  for (int64_t i = 0; i < a.out.count(); ++i) ASSERT_NEAR(a.out.data<float>()[i], want.out[i], 1e-5);
  for (int64_t i = 0; i < a.lse.count(); ++i) {
    if (std::isfinite(want.lse[i])) {
      ASSERT_NEAR(a.lse.data<float>()[i], want.lse[i], 1e-5);
    } else {
      ASSERT_EQ(a.lse.data<float>()[i], want.lse[i]);
    }
  }

  AttentionBackward b = backward_of(a, dout);
  backend_.attention().attention_backward(b);
  const auto dq = values(b.dq.tensor), dk = values(b.dk.tensor), dv = values(b.dv.tensor);
  EXPECT_EQ(dq[86 * 32], 0);
  EXPECT_EQ(dk[25 * 32], 0);
  b.dk.write = Write::none;
  b.dv.write = Write::accumulate;
  b.dq = {};
  backend_.attention().attention_backward(b);
  EXPECT_EQ(values(b.dk.tensor), dk);
  for (size_t i = 0; i < dv.size(); ++i) ASSERT_FLOAT_EQ(values(b.dv.tensor)[i], 2 * dv[i]);
}

TEST_F(AttentionKernelTest, WhatIsNotVisibleIsNotComputed) {
  const auto scores = [&](std::vector<Segment> segments, AttentionSpec spec) {
    spec.n_heads = spec.n_kv_heads = 1, spec.head_dim = 8;
    const Tensor x = filled({1024, 8}, 1);
    const Attention a = call(x, x, x, segments, spec);
    std::atomic<int64_t> count = 0;
    flash::computed_scores = &count;
    backend_.attention().attention(a);
    flash::computed_scores = nullptr;
    return count.load();
  };
  constexpr int64_t P = flash::widest_panel;  // a panel computes what any of its queries sees
  const int64_t causal = scores({{0, 1024, 0, 1024}}, {});
  EXPECT_GE(causal, 1024 * 1025 / 2);
  EXPECT_LE(causal, 1024 * (1024 + P) / 2);
  EXPECT_EQ(scores({{0, 1024, 0, 1024}}, {.causal = false}), 1024 * 1024);
  EXPECT_LE(scores({{0, 1024, 0, 1024}}, {.window = 100}), 1024 * (100 + P));
  EXPECT_LE(scores({{0, 1024, 0, 1024}}, {.causal = false, .window = 100}), 1024 * (199 + P));
  EXPECT_EQ(scores({{0, 512, 0, 512}, {512, 512, 512, 512}}, {.causal = false}), 2 * 512 * 512);
  EXPECT_EQ(scores({{0, 1, 0, 1000}}, {.window = 100}), 100);
  EXPECT_EQ(scores({{0, 500, 0, 0}}, {}), 0);
}

TEST_F(AttentionKernelTest, ARowThatIsNotANumberSpoilsItselfOnly) {
  const AttentionSpec spec{.n_heads = 1, .n_kv_heads = 1, .head_dim = 16};
  const Tensor q = filled({100, 16}, 1), k = filled({100, 16}, 2), v = filled({100, 16}, 3);
  q.data<float>()[50 * 16 + 3] = NAN;
  const Attention a = call(q, k, v, {{0, 100, 0, 100}}, spec);
  backend_.attention().attention(a);
  for (int64_t r = 0; r < 100; ++r)
    for (int64_t c = 0; c < 16; ++c) EXPECT_EQ(std::isnan(a.out.data<float>()[r * 16 + c]), r == 50) << r;
}

TEST_F(AttentionKernelTest, ScoresFarApartStayFinite) {
  const AttentionSpec spec{.n_heads = 1, .n_kv_heads = 1, .head_dim = 8};
  const Tensor q = filled({200, 8}, 1), k = filled({200, 8}, 2), v = filled({200, 8}, 3);
  for (int64_t i = 0; i < q.count(); ++i) q.data<float>()[i] *= 1e4f;
  const Attention a = call(q, k, v, {{0, 200, 0, 200}}, spec);
  backend_.attention().attention(a);
  for (float x : values(a.out)) ASSERT_TRUE(std::isfinite(x));
}

TEST_F(AttentionKernelTest, SegmentsOutsideTheRowsAreRefused) {
  const AttentionSpec spec{.n_heads = 1, .n_kv_heads = 1, .head_dim = 8};
  const Tensor x = filled({10, 8}, 1);
  for (const Segment& s : {Segment{0, 11, 0, 10}, Segment{-1, 5, 0, 10}, Segment{0, 5, 8, 3}, Segment{5, 6, 0, 10}})
    EXPECT_THROW(backend_.attention().attention(call(x, x, x, {s}, spec)), Error);
}

TEST_F(AttentionKernelTest, ThePlanTakesWhatTheRunTakes) {
  const AttentionSpec spec{
      .n_heads = 2, .n_kv_heads = 1, .head_dim = 8, .relative_buckets = 32, .relative_distance = 128};
  const Tensor q = filled({80, 16}, 1), k = filled({80, 8}, 2);
  Attention a = call(q, k, k, {{0, 80, 0, 80}}, spec);
  a.relative = filled({32, 2}, 3);
  AttentionBackward b = backward_of(a, q);
  b.drelative = {blank({32, 2}), Write::overwrite};
  const auto peak = [&](Arena& arena) {
    backend_.bind(arena);
    backend_.attention().attention(a);
    backend_.attention().attention_backward(b);
    return arena.peak();
  };
  Arena plan;
  const HostMemory memory(int64_t(64) << 20);
  Arena run(memory.data(), memory.bytes());
  EXPECT_EQ(peak(plan), peak(run));
  backend_.bind(arena_);
}

}  // namespace
}  // namespace mixtape
