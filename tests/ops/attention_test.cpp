#include "core/ops/attention.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/cpu/attention/problem.h"
#include "tests/ops/attention_reference.h"
#include "tests/support/op_test.h"

namespace mixtape {
namespace {

using flash::Segment;

struct Case {
  int64_t rows = 0;
  std::vector<Segment> segments;
  AttentionSpec spec;
  bool alibi = false;
  std::vector<DType> types = {DType::f32, DType::f16, DType::bf16};
};

Array columns(const Array& a, int64_t begin, int64_t count) {
  Array part({a.rows(), count});
  for (int64_t r = 0; r < a.rows(); ++r)
    for (int64_t c = 0; c < count; ++c) part(r, c) = a(r, begin + c);
  return part;
}

std::vector<float> slopes_of(const Case& c) {
  std::vector<float> slopes(c.alibi ? c.spec.n_heads : 0);
  if (c.alibi) alibi_slopes(slopes.data(), c.spec.n_heads);
  return slopes;
}

OpTest describe(Case c) {
  AttentionSpec& spec = c.spec;
  if (spec.scale == 0) spec.scale = 1 / std::sqrt(float(spec.head_dim));
  int64_t longest = spec.head_dim;
  for (const Segment& s : c.segments) {
    spec.max_q_len = std::max<int64_t>(spec.max_q_len, s.q_len);
    longest = std::max<int64_t>(longest, s.k_len);
  }
  if (spec.relative_buckets)  // pairs of a query and a key that may share a bucket
    for (const Segment& s : c.segments) longest = std::max<int64_t>(longest, int64_t(s.q_len) * s.k_len);
  OpTest test;
  test.name = "attention";
  test.sizes = {{c.rows, spec.n_heads, spec.n_kv_heads, spec.head_dim}};
  test.types = c.types;
  test.inputs = [c](Sizes) {
    std::vector<int64_t> segments;
    for (const Segment& s : c.segments) segments.insert(segments.end(), {s.q_start, s.q_len, s.k_start, s.k_len});
    segments.insert(segments.end(), {0, 1 << 20, 0, 1 << 20});  // beyond n_segments: not to be read
    const int64_t n = int64_t(c.segments.size());
    Array slopes({c.spec.n_heads});
    const std::vector<float> values = slopes_of(c);
    for (size_t h = 0; h < values.size(); ++h) slopes[h] = values[h];
    return Inputs{normal({c.rows, (c.spec.n_heads + 2 * c.spec.n_kv_heads) * c.spec.head_dim}),
                  integers({n + 1, 4}, segments), integers({1}, {n}),
                  c.spec.relative_buckets ? normal_parameter({c.spec.relative_buckets, c.spec.n_heads})
                  : c.alibi               ? constant(slopes)
                                          : absent()};
  };
  test.op = [c](Tape& tape, const Tensors& in, Sizes) {
    return Tensors{attention(tape, in[0], in[1], in[2], in[3], c.spec)};
  };
  test.reference = [c](const Arrays& in, Sizes) {
    const int64_t q = c.spec.n_heads * c.spec.head_dim, kv = c.spec.n_kv_heads * c.spec.head_dim;
    return Arrays{attention_reference(columns(in[0], 0, q), columns(in[0], q, kv), columns(in[0], q + kv, kv),
                                      c.segments, slopes_of(c), c.spec, c.spec.relative_buckets ? &in[3] : nullptr)
                      .out};
  };
  test.reduction = [longest](Sizes) { return longest; };
  return test;
}

// The same for cross-attention: queries of `c.rows` rows, keys and values of `rows_k`.
OpTest describe_cross(Case c, int64_t rows_k) {
  OpTest test = describe(c);
  AttentionSpec spec = c.spec;
  if (spec.scale == 0) spec.scale = 1 / std::sqrt(float(spec.head_dim));
  for (const Segment& s : c.segments) {
    spec.max_q_len = std::max<int64_t>(spec.max_q_len, s.q_len);
    spec.max_k_len = std::max<int64_t>(spec.max_k_len, s.k_len);
  }
  test.name = "cross_attention";
  test.inputs = [c, spec, rows_k, self = test.inputs](Sizes s) {
    const Inputs in = self(s);
    const int64_t q = spec.n_heads * spec.head_dim, kv = spec.n_kv_heads * spec.head_dim;
    return Inputs{normal({c.rows, q}), normal({rows_k, 2 * kv}), in[1], in[2]};
  };
  test.op = [spec](Tape& tape, const Tensors& in, Sizes) {
    return Tensors{cross_attention(tape, in[0], in[1], in[2], in[3], spec)};
  };
  test.reference = [c, spec](const Arrays& in, Sizes) {
    const int64_t kv = spec.n_kv_heads * spec.head_dim;
    return Arrays{attention_reference(in[0], columns(in[1], 0, kv), columns(in[1], kv, kv), c.segments, {}, spec).out};
  };
  return test;
}

Case whole(int64_t rows, int64_t heads, int64_t kv_heads, int64_t head_dim) {
  return {.rows = rows,
          .segments = {{0, int32_t(rows), 0, int32_t(rows)}},
          .spec = {.n_heads = heads, .n_kv_heads = kv_heads, .head_dim = head_dim}};
}

TEST(Attention, LengthsAcrossTileEdges) {
  for (int64_t rows : {1, 2, 7, 15, 16, 17, 63, 64, 65, 127, 129}) check_op(describe(whole(rows, 1, 1, 8)));
  Case c = whole(300, 1, 1, 16);
  c.types = {DType::f32};
  check_op(describe(c));
}

TEST(Attention, HeadDimensions) {
  for (int64_t head_dim : {8, 12, 16, 33, 64, 80, 128, 256}) check_op(describe(whole(67, 1, 1, head_dim)));
}

TEST(Attention, Bidirectional) {
  for (int64_t rows : {1, 40, 131}) {
    Case c = whole(rows, 2, 2, 16);
    c.spec.causal = false;
    check_op(describe(c));
  }
}

TEST(Attention, GroupedQueries) {
  check_op(describe(whole(70, 4, 2, 16)));
  check_op(describe(whole(70, 6, 1, 8)));
  check_op(describe(whole(1, 6, 2, 24)));
}

TEST(Attention, Window) {
  for (bool causal : {true, false})
    for (int64_t window : {1, 5, 64, 70}) {
      Case c = whole(150, 1, 1, 8);
      c.spec.causal = causal;
      c.spec.window = window;
      c.types = {DType::f32};
      check_op(describe(c));
    }
}

TEST(Attention, Alibi) {
  for (bool causal : {true, false}) {
    Case c = whole(90, 3, 3, 8);
    c.alibi = true;
    c.spec.causal = causal;
    check_op(describe(c));
  }
  Case c = whole(1, 3, 1, 8);
  c.alibi = true;
  check_op(describe(c));
}

// Odd lengths, a gap between documents, and rows after the last one.
std::vector<Segment> documents() { return {{0, 3, 0, 3}, {3, 65, 3, 65}, {70, 1, 70, 1}, {71, 29, 71, 29}}; }

TEST(Attention, Documents) {
  for (bool causal : {true, false}) {
    Case c = whole(105, 2, 1, 8);
    c.segments = documents();
    c.spec.causal = causal;
    check_op(describe(c));
    c.alibi = true;
    c.spec.window = 20;
    check_op(describe(c));
  }
}

TEST(Attention, QueriesAndKeysOfDifferentLength) {
  for (bool causal : {true, false})
    for (Segment s : {Segment{60, 40, 0, 100}, Segment{0, 100, 60, 40}, Segment{99, 1, 0, 100}, Segment{0, 5, 0, 0},
                      Segment{7, 0, 0, 50}}) {
      Case c = whole(100, 2, 2, 8);
      c.segments = {s};
      c.spec.causal = causal;
      c.types = {DType::f32};
      check_op(describe(c));
      c.spec.window = 9;
      c.alibi = true;
      check_op(describe(c));
    }
}

TEST(Attention, Dropout) {
  for (int threshold : {1, 64, 200}) {
    Case c = whole(105, 2, 1, 16);
    c.segments = documents();
    c.spec.dropout_threshold = threshold;
    check_op(describe(c));
  }
  Case c = whole(150, 1, 1, 8);
  c.spec.dropout_threshold = 26;
  c.spec.causal = false;
  c.alibi = true;
  check_op(describe(c));
}

// Buckets that end before the longest distance and after it, both directions, more heads than a vector has lanes.
// Some of the heads that ranks share out: their masks are those that they have among all.
TEST(Attention, DropoutCountsAllHeads) {
  Case c = whole(70, 2, 1, 16);
  c.spec.dropout_threshold = 64;
  c.spec.first_head = 2, c.spec.all_heads = 6;
  check_op(describe(c));
}

TEST(Attention, RelativePositions) {
  for (bool causal : {true, false})
    for (const auto& [rows, buckets, distance] : {std::tuple(7, 4, 8), {40, 32, 128}, {150, 16, 20}, {131, 8, 33}}) {
      Case c = whole(rows, 2, 2, 8);
      c.spec.causal = causal;
      c.spec.relative_buckets = buckets, c.spec.relative_distance = distance;
      if (rows > 100) c.types = {DType::f32, DType::bf16};
      check_op(describe(c));
    }
  Case c = whole(20, 18, 6, 4);
  c.spec.scale = 1;  // T5 does not scale
  c.spec.relative_buckets = 6, c.spec.relative_distance = 7;
  check_op(describe(c));
}

TEST(Attention, RelativePositionsOfDocuments) {
  for (bool causal : {true, false}) {
    Case c = whole(105, 3, 1, 8);
    c.segments = documents();
    c.spec.causal = causal;
    c.spec.relative_buckets = 12, c.spec.relative_distance = 30;
    c.spec.dropout_threshold = 40;
    check_op(describe(c));
    c.types = {DType::f32};
    c.spec.window = 20;
    check_op(describe(c));
    // Ends aligned: a query's place follows from the keys that came before it.
    for (Segment s : {Segment{60, 40, 0, 100}, Segment{0, 100, 60, 40}, Segment{99, 1, 0, 100}, Segment{0, 5, 0, 0},
                      Segment{7, 0, 0, 50}}) {
      c.segments = {s};
      c.spec.window = 0;
      c.spec.dropout_threshold = 0;
      check_op(describe(c));
    }
  }
}

// More short segments than there is room for sums: they take rounds.
TEST(Attention, RelativePositionsOfManySegments) {
  Case c = whole(300, 2, 2, 4);
  c.segments.clear();
  for (int32_t row = 0; row < 300; row += 3) c.segments.push_back({row, 2, row, 2});
  c.spec.relative_buckets = 4, c.spec.relative_distance = 6;
  c.spec.causal = false;
  c.types = {DType::f32};
  check_op(describe(c));
}

TEST(Attention, RelativeBucketsEqualHuggingFace) {
  const auto golden = nlohmann::json::parse(std::ifstream(std::string(MIXTAPE_GOLDEN) + "/models/positions.json"));
  for (const auto& c : golden.at("t5_buckets")) {
    const AttentionSpec spec{.causal = !c["bidirectional"].get<bool>(),
                             .relative_buckets = c["num_buckets"],
                             .relative_distance = c["max_distance"]};
    const auto& buckets = c["bucket"];
    ASSERT_EQ(buckets.size(), 601u);
    for (int64_t i = 0; i < 601; ++i) {
      EXPECT_EQ(relative_bucket(i - 300, spec), buckets[i].get<int64_t>())
          << spec.relative_buckets << " at " << i - 300;
      EXPECT_EQ(bucket_of(i - 300, spec), buckets[i].get<int64_t>()) << spec.relative_buckets << " at " << i - 300;
    }
    for (int64_t far : {int64_t(1) << 20, int64_t(1) << 62})
      EXPECT_EQ(relative_bucket(-far, spec), (spec.causal ? 1 : 0.5) * double(spec.relative_buckets) - 1);
  }
}

TEST(Attention, RelativePositionsRefuseWhatCannotBe) {
  CpuBackend backend;
  Arena arena;
  backend.bind(arena);
  Tape tape(backend, nullptr, nullptr);
  const Tensor qkv = backend.make({5, 24}, DType::f32), segments = backend.make({2, 4}, DType::i32),
               count = backend.make({1}, DType::i32);
  const auto run = [&](int64_t buckets, int64_t distance, bool causal, Shape table) {
    attention(tape, qkv, segments, count, backend.make(table, DType::f32),
              {.n_heads = 1,
               .n_kv_heads = 1,
               .head_dim = 8,
               .causal = causal,
               .relative_buckets = buckets,
               .relative_distance = distance});
  };
  EXPECT_NO_THROW(run(32, 128, false, {32, 1}));
  EXPECT_NO_THROW(run(2, 2, true, {2, 1}));
  EXPECT_THROW(run(32, 128, false, {32, 2}), Error);
  EXPECT_THROW(run(31, 128, false, {31, 1}), Error);
  EXPECT_THROW(run(2, 128, false, {2, 1}), Error);
  EXPECT_THROW(run(1, 128, true, {1, 1}), Error);
  EXPECT_THROW(run(32, 16, true, {32, 1}), Error);
  EXPECT_THROW(run(-4, 16, true, {4, 1}), Error);
}

// A decoder's rows over an encoder's: fewer, as many and more of them, a query without keys, keys without a query, and
// rows of padding on both sides.
TEST(Attention, Cross) {
  Case c{.rows = 90,
         .segments = {{0, 7, 0, 70}, {7, 65, 70, 3}, {72, 1, 80, 64}, {73, 4, 144, 0}, {77, 0, 144, 9}},
         .spec = {.n_heads = 2, .n_kv_heads = 2, .head_dim = 8, .causal = false}};
  check_op(describe_cross(c, 160));
  c.spec.n_kv_heads = 1;
  c.spec.dropout_threshold = 77;
  check_op(describe_cross(c, 160));
  c.segments = {{0, 90, 0, 200}};  // more keys than a task owns when there are more threads than heads
  check_op(describe_cross(c, 200));
  c.spec.window = 30;
  c.types = {DType::f32};
  check_op(describe_cross(c, 200));
}

TEST(Attention, CrossRefusesShapesThatDoNotBelongTogether) {
  CpuBackend backend;
  Arena arena;
  backend.bind(arena);
  Tape tape(backend, nullptr, nullptr);
  const AttentionSpec spec{.n_heads = 2, .n_kv_heads = 1, .head_dim = 8, .scale = 1, .causal = false};
  const Tensor q = backend.make({5, 16}, DType::bf16), kv = backend.make({9, 16}, DType::bf16);
  const Tensor segments = backend.make({2, 4}, DType::i32), count = backend.make({1}, DType::i32);
  EXPECT_NO_THROW(cross_attention(tape, q, kv, segments, count, spec));
  EXPECT_THROW(cross_attention(tape, q, backend.make({9, 32}, DType::bf16), segments, count, spec), Error);
  EXPECT_THROW(cross_attention(tape, q, backend.make({9, 16}, DType::f32), segments, count, spec), Error);
  EXPECT_THROW(cross_attention(tape, q, kv, backend.make({2, 3}, DType::i32), count, spec), Error);
  EXPECT_THROW(cross_attention(tape, q, kv, segments, Tensor(), spec), Error);
}

}  // namespace
}  // namespace mixtape
