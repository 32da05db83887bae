#pragma once

#include <cmath>
#include <limits>
#include <vector>

#include "core/base/philox.h"
#include "core/cpu/attention/problem.h"
#include "core/ops/attention.h"
#include "tests/support/op_test.h"

// Attention in float64 for the tests of the operation and of its kernels, written from the formulas of
// core/ops/attention.h.

namespace mixtape {

constexpr uint32_t first_site = 0;  // the harness runs one operation on a fresh tape

// T5's bucket, as the paper's code has it, for key - query.
inline int64_t bucket_of(int64_t relative, const AttentionSpec& spec) {
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

inline bool sees(const AttentionSpec& spec, const flash::Segment& s, int64_t i, int64_t j) {
  const int64_t aligned = i + s.k_len - s.q_len;
  if (spec.causal) return j <= aligned && (spec.window == 0 || j > aligned - spec.window);
  return spec.window == 0 || std::abs(j - aligned) < spec.window;
}

// 1 / (1 - p) or 0, by the mapping that core/ops/attention.h defines.
inline double dropout_factor(const AttentionSpec& spec, int64_t head, int64_t i, int64_t j) {
  if (spec.dropout_threshold == 0) return 1;
  const uint64_t index = uint64_t((i / 16) * spec.heads_of_all() + spec.first_head + head) << 32 |
                         uint64_t((j / 32) * 32 + 4 * (i % 8) + (j % 8) / 2);
  const auto words = philox(test_state().philox, index, first_site, Purpose::attention_dropout);
  const int64_t byte = 4 * ((j % 32) / 8) + 2 * ((i % 16) / 8) + j % 2;
  const int value = words[byte / 4] >> (8 * (byte % 4)) & 255;
  return value < spec.dropout_threshold ? 0 : 1 / (1 - spec.dropout_threshold / 256.0);
}

// Everything in float64, as the formula says; q, k, v: [rows, heads * D].
struct Reference {
  Array out, lse;
};
inline Reference attention_reference(const Array& q, const Array& k, const Array& v,
                                     const std::vector<flash::Segment>& segments, const std::vector<float>& slopes,
                                     const AttentionSpec& spec, const Array* relative = nullptr) {
  const int64_t D = spec.head_dim, group = spec.n_heads / spec.n_kv_heads;
  Reference r{Array({q.rows(), spec.n_heads * D}), Array({spec.n_heads, q.rows()}, -INFINITY)};
  std::vector<double> s;
  for (const flash::Segment& segment : segments)
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

}  // namespace mixtape
