#include "core/ops/attention.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/base/philox.h"
#include "core/cpu/attention/problem.h"
#include "tests/support/op_test.h"

namespace mixtape {
namespace {

using flash::Segment;

constexpr uint32_t first_site = 0;  // the harness runs one operation on a fresh tape

struct Case {
  int64_t rows = 0;
  std::vector<Segment> segments;
  AttentionSpec spec;
  bool alibi = false;
  std::vector<DType> types = {DType::f32, DType::f16, DType::bf16};
};

// T5's bucket, as the paper's code has it, for key - query.
int64_t bucket_of(int64_t relative, const AttentionSpec& spec) {
  int64_t buckets = spec.relative_buckets, first = 0, n = -relative;
  if (spec.causal) {
    n = std::max<int64_t>(n, 0);
  } else {
    buckets /= 2;
    first = relative > 0 ? buckets : 0;
    n = std::abs(n);
  }
  const int64_t exact = buckets / 2;
  if (n < exact) return first + n;
  const double share = std::log(double(n) / double(exact)) / std::log(double(spec.relative_distance) / double(exact));
  return first + std::min(exact + int64_t(share * double(buckets - exact) + 1e-9), buckets - 1);
}

bool sees(const AttentionSpec& spec, const Segment& s, int64_t i, int64_t j) {
  const int64_t aligned = i + s.k_len - s.q_len;
  if (spec.causal) return j <= aligned && (spec.window == 0 || j > aligned - spec.window);
  return spec.window == 0 || std::abs(j - aligned) < spec.window;
}

// 1 / (1 - p) or 0, by the mapping that core/ops/attention.h defines.
double dropout_factor(const AttentionSpec& spec, int64_t head, int64_t i, int64_t j) {
  if (spec.dropout_threshold == 0) return 1;
  const uint64_t index =
      uint64_t((i / 16) * spec.n_heads + head) << 32 | uint64_t((j / 32) * 32 + 4 * (i % 8) + (j % 8) / 2);
  const auto words = philox(test_state().philox, index, first_site, Purpose::attention_dropout);
  const int64_t byte = 4 * ((j % 32) / 8) + 2 * ((i % 16) / 8) + j % 2;
  const int value = words[byte / 4] >> (8 * (byte % 4)) & 255;
  return value < spec.dropout_threshold ? 0 : 1 / (1 - spec.dropout_threshold / 256.0);
}

// Everything in float64, as the formula says; q, k, v: [rows, heads * D].
struct Reference {
  Array out, lse;
};
Reference attention_reference(const Array& q, const Array& k, const Array& v, const std::vector<Segment>& segments,
                              const std::vector<float>& slopes, const AttentionSpec& spec,
                              const Array* relative = nullptr) {
  const int64_t D = spec.head_dim, group = spec.n_heads / spec.n_kv_heads;
  Reference r{Array({q.rows(), spec.n_heads * D}), Array({spec.n_heads, q.rows()}, -INFINITY)};
  std::vector<double> s;
  for (const Segment& segment : segments)
    for (int64_t h = 0; h < spec.n_heads; ++h)
      for (int64_t i = 0; i < segment.q_len; ++i) {
        const int64_t row = segment.q_start + i, kv = h / group * D;
        s.assign(segment.k_len, -INFINITY);
        double most = -INFINITY, sum = 0;
        for (int64_t j = 0; j < segment.k_len; ++j) {
          if (!sees(spec, segment, i, j)) continue;
          double dot = 0;
          for (int64_t c = 0; c < D; ++c) dot += q(row, h * D + c) * k(segment.k_start + j, kv + c);
          s[j] = spec.scale * dot;
          const int64_t distance = j - (i + segment.k_len - segment.q_len);
          if (!slopes.empty()) s[j] += slopes[h] * double(distance);
          if (relative) s[j] += (*relative)(bucket_of(distance, spec), h);
          most = std::max(most, s[j]);
        }
        if (most == -INFINITY) continue;
        for (double& x : s) sum += x = std::exp(x - most);
        r.lse(h, row) = most + std::log(sum);
        for (int64_t j = 0; j < segment.k_len; ++j) {
          if (s[j] == 0) continue;
          const double p = s[j] / sum * dropout_factor(spec, h, row, segment.k_start + j);
          for (int64_t c = 0; c < D; ++c) r.out(row, h * D + c) += p * v(segment.k_start + j, kv + c);
        }
      }
  return r;
}

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
