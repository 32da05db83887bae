#include "core/ops/attention.h"

#include <cmath>

namespace mixtape {
namespace {

// Views of what the kernels take, whichever way the projections packed it.
template <class T>
struct Packed {
  T q, k, v;
};
template <class T>
Packed<T> split_qkv(const T& qkv, const AttentionSpec& s) {
  const int64_t q = s.n_heads * s.head_dim, kv = s.n_kv_heads * s.head_dim;
  return {qkv.columns(0, q), qkv.columns(q, kv), qkv.columns(q + kv, kv)};
}
template <class T>
Packed<T> split_kv(const T& q, const T& kv, const AttentionSpec& s) {
  const int64_t width = s.n_kv_heads * s.head_dim;
  return {q, kv.columns(0, width), kv.columns(width, width)};
}

// What both operations hand to the kernels; each adds where its segments and biases are.
Attention forward_of(const Forward& f, const Packed<Tensor>& in, const AttentionSpec& spec) {
  return {.out = f.out(0),
          .lse = f.saved(0),
          .q = in.q,
          .k = in.k,
          .v = in.v,
          .spec = spec,
          .site = f.site(),
          .state = f.state()};
}
AttentionBackward backward_of(const Backward& b, const Packed<Tensor>& in, const Packed<Grad>& to,
                              const AttentionSpec& spec) {
  return {.dq = to.q,
          .dk = to.k,
          .dv = to.v,
          .dout = b.dy(0),
          .out = b.out(0),
          .lse = b.saved(0),
          .q = in.q,
          .k = in.k,
          .v = in.v,
          .spec = spec,
          .site = b.site(),
          .state = b.state()};
}

constexpr Operation<AttentionSpec> attention_operation{
    .name = "attention",
    .forward =
        [](const Forward& f, const AttentionSpec& spec) {
          Attention a = forward_of(f, split_qkv(f.in(0), spec), spec);
          a.segments = f.in(1), a.n_segments = f.in(2);
          (spec.relative_buckets ? a.relative : a.slopes) = f.in(3);
          f.backend().attention().attention(a);
        },
    .backward =
        [](const Backward& b, const AttentionSpec& spec) {
          AttentionBackward a = backward_of(b, split_qkv(b.in(0), spec), split_qkv(b.grad(0), spec), spec);
          a.segments = b.in(1), a.n_segments = b.in(2);
          (spec.relative_buckets ? a.relative : a.slopes) = b.in(3);
          if (spec.relative_buckets) a.drelative = b.grad(3);
          b.backend().attention().attention_backward(a);
        },
    .needs = {.inputs = {0, 3}, .outputs = {0}},
    .random = true,
};

constexpr Operation<AttentionSpec> cross_attention_operation{
    .name = "cross_attention",
    .forward =
        [](const Forward& f, const AttentionSpec& spec) {
          Attention a = forward_of(f, split_kv(f.in(0), f.in(1), spec), spec);
          a.segments = f.in(2), a.n_segments = f.in(3);
          f.backend().attention().attention(a);
        },
    .backward =
        [](const Backward& b, const AttentionSpec& spec) {
          AttentionBackward a =
              backward_of(b, split_kv(b.in(0), b.in(1), spec), split_kv(b.grad(0), b.grad(1), spec), spec);
          a.segments = b.in(2), a.n_segments = b.in(3);
          b.backend().attention().attention_backward(a);
        },
    .needs = {.inputs = {0, 1}, .outputs = {0}},
    .random = true,
};

// What holds for both: head counts, and the list of segments.
void check(const char* name, const AttentionSpec& s, const Tensor& segments, const Tensor& n_segments) {
  if (s.n_kv_heads < 1 || s.n_heads % s.n_kv_heads)
    throw Error("{}: {} heads over {} key/value heads", name, s.n_heads, s.n_kv_heads);
  expect_shape(name, "segments", segments, {segments.rows(), 4});
  expect_dtype(name, "segments", segments, DType::i32);
  expect_shape(name, "n_segments", n_segments, {1});
  expect_dtype(name, "n_segments", n_segments, DType::i32);
}

void check_relative(const AttentionSpec& s, const Tensor& table) {
  const int64_t directions = s.causal ? 1 : 2, exact = s.relative_buckets / directions / 2;
  if (s.relative_buckets % directions || exact < 1 || s.relative_distance <= exact)
    throw Error("attention: {} buckets up to a distance of {}, expected {} and a distance of more than {}",
                s.relative_buckets, s.relative_distance, s.causal ? "at least 2" : "an even number from 4 on", exact);
  expect_shape("attention", "the table of relative positions", table, {s.relative_buckets, s.n_heads});
}

}  // namespace

Tensor attention(Tape& tape, const Tensor& qkv, const Tensor& segments, const Tensor& n_segments, const Tensor& bias,
                 const AttentionSpec& spec) {
  AttentionSpec s = spec;
  if (!tape.training()) s.dropout_threshold = 0;
  check("attention", s, segments, n_segments);
  expect_shape("attention", "qkv", qkv, {qkv.rows(), (s.n_heads + 2 * s.n_kv_heads) * s.head_dim});
  if (s.relative_buckets)
    check_relative(s, bias);
  else if (bias)
    expect_shape("attention", "slopes", bias, {s.n_heads});
  return tape.run(attention_operation, {qkv, segments, n_segments, bias},
                  Makes{.outputs = {{{qkv.rows(), s.n_heads * s.head_dim}, qkv.dtype()}},
                        .saved = {{{s.n_heads, qkv.rows()}, DType::f32}}},
                  s);
}

Tensor cross_attention(Tape& tape, const Tensor& q, const Tensor& kv, const Tensor& segments, const Tensor& n_segments,
                       const AttentionSpec& spec) {
  AttentionSpec s = spec;
  if (!tape.training()) s.dropout_threshold = 0;
  check("cross_attention", s, segments, n_segments);
  if (s.relative_buckets) throw Error("cross_attention: relative positions are for self-attention");
  expect_shape("cross_attention", "q", q, {q.rows(), s.n_heads * s.head_dim});
  expect_shape("cross_attention", "kv", kv, {kv.rows(), 2 * s.n_kv_heads * s.head_dim});
  expect_dtype("cross_attention", "kv", kv, q.dtype());
  return tape.run(cross_attention_operation, {q, kv, segments, n_segments},
                  Makes{.outputs = {like(q)}, .saved = {{{s.n_heads, q.rows()}, DType::f32}}}, s);
}

int64_t relative_bucket(int64_t relative, const AttentionSpec& spec) {
  const int64_t buckets = spec.causal ? spec.relative_buckets : spec.relative_buckets / 2, exact = buckets / 2;
  const int64_t first = !spec.causal && relative > 0 ? buckets : 0;
  const int64_t distance = spec.causal ? std::max<int64_t>(-relative, 0) : std::abs(relative);
  if (distance < exact) return first + distance;
  const float span = float(std::log(double(spec.relative_distance) / double(exact)));
  const float along = std::log(float(distance) / float(exact)) / span * float(buckets - exact);
  // Far beyond the last bucket the product may exceed an integer's range.
  return first + (along < float(buckets - exact) ? exact + int64_t(along) : buckets - 1);
}

// For p = 2^floor(log2 n) heads the slopes are 2^(-8k/p), k = 1..p; the rest interleave: 2^(-4(2j-1)/p).
void alibi_slopes(float* slopes, int64_t n_heads) {
  int64_t p = 1;
  while (2 * p <= n_heads) p *= 2;
  for (int64_t k = 1; k <= p; ++k) slopes[k - 1] = float(std::exp2(-8.0 * double(k) / double(p)));
  for (int64_t j = 1; j <= n_heads - p; ++j) slopes[p + j - 1] = float(std::exp2(-4.0 * double(2 * j - 1) / double(p)));
}

}  // namespace mixtape
