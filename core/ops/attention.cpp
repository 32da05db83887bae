#include "core/ops/attention.h"

#include <cmath>

namespace mixtape {
namespace {

struct Split {
  Tensor q, k, v;
};
Split split(const Tensor& qkv, const AttentionSpec& s) {
  const int64_t q = s.n_heads * s.head_dim, kv = s.n_kv_heads * s.head_dim;
  return {qkv.columns(0, q), qkv.columns(q, kv), qkv.columns(q + kv, kv)};
}

constexpr Operation<AttentionSpec> attention_operation{
    .name = "attention",
    .forward =
        [](const Forward& f, const AttentionSpec& spec) {
          const Split in = split(f.in(0), spec);
          f.backend().attention().attention({.out = f.out(0),
                                             .lse = f.saved(0),
                                             .q = in.q,
                                             .k = in.k,
                                             .v = in.v,
                                             .segments = f.in(1),
                                             .n_segments = f.in(2),
                                             .slopes = f.in(3),
                                             .spec = spec,
                                             .site = f.site(),
                                             .state = f.state()});
        },
    .backward =
        [](const Backward& b, const AttentionSpec& spec) {
          const Grad dqkv = b.grad(0);
          const int64_t q = spec.n_heads * spec.head_dim, kv = spec.n_kv_heads * spec.head_dim;
          const Split in = split(b.in(0), spec);
          b.backend().attention().attention_backward({.dq = dqkv.columns(0, q),
                                                      .dk = dqkv.columns(q, kv),
                                                      .dv = dqkv.columns(q + kv, kv),
                                                      .dout = b.dy(0),
                                                      .out = b.out(0),
                                                      .lse = b.saved(0),
                                                      .q = in.q,
                                                      .k = in.k,
                                                      .v = in.v,
                                                      .segments = b.in(1),
                                                      .n_segments = b.in(2),
                                                      .slopes = b.in(3),
                                                      .spec = spec,
                                                      .site = b.site(),
                                                      .state = b.state()});
        },
    .needs = {.inputs = {0}, .outputs = {0}},
    .random = true,
};

}  // namespace

Tensor attention(Tape& tape, const Tensor& qkv, const Tensor& segments, const Tensor& n_segments, const Tensor& slopes,
                 const AttentionSpec& spec) {
  AttentionSpec s = spec;
  if (!tape.training()) s.dropout_threshold = 0;
  if (s.n_kv_heads < 1 || s.n_heads % s.n_kv_heads)
    throw Error("attention: {} heads over {} key/value heads", s.n_heads, s.n_kv_heads);
  expect_shape("attention", "qkv", qkv, {qkv.rows(), (s.n_heads + 2 * s.n_kv_heads) * s.head_dim});
  expect_shape("attention", "segments", segments, {segments.rows(), 4});
  expect_dtype("attention", "segments", segments, DType::i32);
  if (slopes) expect_shape("attention", "slopes", slopes, {s.n_heads});
  return tape.run(attention_operation, {qkv, segments, n_segments, slopes},
                  Makes{.outputs = {{{qkv.rows(), s.n_heads * s.head_dim}, qkv.dtype()}},
                        .saved = {{{s.n_heads, qkv.rows()}, DType::f32}}},
                  s);
}

// For p = 2^floor(log2 n) heads the slopes are 2^(-8k/p), k = 1..p; the rest interleave: 2^(-4(2j-1)/p).
void alibi_slopes(float* slopes, int64_t n_heads) {
  int64_t p = 1;
  while (2 * p <= n_heads) p *= 2;
  for (int64_t k = 1; k <= p; ++k) slopes[k - 1] = float(std::exp2(-8.0 * double(k) / double(p)));
  for (int64_t j = 1; j <= n_heads - p; ++j) slopes[p + j - 1] = float(std::exp2(-4.0 * double(2 * j - 1) / double(p)));
}

}  // namespace mixtape
