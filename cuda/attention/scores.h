// What the tensor cores' kernels do with scores while they lie in registers: mask, bias, softmax, dropout, and
// gradients.
//
// A warp has 16 rows of a tile of scores; sums of a product lie as device/mma_m16n8k16.h says, on Hopper too.
#pragma once

#include "cuda/attention/problem.h"
#include "cuda/device/mma_m16n8k16.h"

namespace mixtape::cuda {

constexpr float log2_e = 1.44269504f, ln_2 = 0.693147181f;

// Row r of a tile in shared memory is D / 8 chunks of 16 bytes; chunk c is kept at place c ^ (r % 8), so that the eight
// rows which ldmatrix reads at one time lie in different banks.
template <int D>
__device__ inline int at(int row, int col) {
  return row * D + (col / 8 ^ row % 8) * 8;
}

// Where element [n][r] of a warp's result lies in its tile.
__device__ inline int row_in_tile(int r) { return warp_id() * 16 + lane_id() / 4 + r / 2 * 8; }
__device__ inline int col_in_tile(int n, int r) { return n * 8 + lane_id() % 4 * 2 + r % 2; }

// A tile of queries and one of keys, each counted inside the segment, `queries` and `keys` long.
struct Pair {
  Segment s;
  int q0, q_end, k0, queries, keys;

  // True if some query of the tile does not see some key of it.
  __device__ bool at_edge(const Visibility& v) const {
    return k0 + keys > s.k_len || q0 + queries > q_end || v.first(s, q_end - 1) > k0 || v.end(s, q0) < k0 + keys;
  }
  // True if some query of the tile sees some key of it.
  __device__ bool any_seen(const Visibility& v) const {
    return q0 < q_end && v.first(s, q0) < k0 + keys && v.end(s, q_end - 1) > k0;
  }
  __device__ bool sees(const Visibility& v, int i, int j) const {
    return i < q_end && j >= v.first(s, i) && j < v.end(s, i);
  }
  __device__ int distance(int i, int j) const { return j - (i + s.k_len - s.q_len); }
};

// Makes the weights that dropout drops negative, of a warp's 16 queries, or with `transposed` of its 16 keys. Where the
// tiles begin at multiples of 16 and 32 in the tensors, a Philox call serves 16 pairs of a lane, or 4 of the transposed
// ones (the mapping: core/ops/attention.h); elsewhere each has its own.
template <bool transposed, class T, int N>
__device__ inline void mark_dropped(const AttentionArguments<T>& a, float (&p)[N][4], const Pair& pair, int head) {
  const AttentionDropout& mask = a.dropout;
  const int q_row = pair.s.q_start + pair.q0 + (transposed ? 0 : warp_id() * 16);
  const int k_row = pair.s.k_start + pair.k0 + (transposed ? warp_id() * 16 : 0);
  if (q_row % 16 || k_row % (transposed ? 16 : 32)) {
#pragma unroll
    for (int n = 0; n < N; ++n)
      for (int r = 0; r < 4; ++r) {
        const int row = lane_id() / 4 + r / 2 * 8, col = col_in_tile(n, r);
        if (mask.drops(head, q_row + (transposed ? col : row), k_row + (transposed ? row : col))) p[n][r] = -p[n][r];
      }
    return;
  }
  const auto words_of = [&](int q, int k) {
    return philox(mask.state->philox,
                  uint64_t(int64_t(q / 16) * mask.n_heads + mask.first_head + head) << 32 | uint32_t(k), mask.site,
                  Purpose::attention_dropout);
  };
  const auto mark = [&](float& x, uint32_t word, int byte) {
    if (int(word >> (8 * byte) & 255) < mask.threshold) x = -x;
  };
  if constexpr (transposed) {
    const bool upper = k_row % 32 != 0;  // of the 32 keys that a call knows of
#pragma unroll
    for (int n = 0; n < N; n += 2)
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        const int place = 4 * (lane_id() % 4 * 2 + c) + lane_id() / 8;
        const auto words = words_of(q_row + 8 * n, k_row / 32 * 32 + place);
#pragma unroll
        for (int i = 0; i < 4; ++i)
          mark(p[n + i % 2][c + i / 2 * 2], upper ? words[2 + i / 2] : words[i / 2], i % 2 * 2 + lane_id() / 4 % 2);
      }
  } else {
#pragma unroll
    for (int n = 0; n < N; n += 4) {
      const auto words = words_of(q_row, k_row + 8 * n + lane_id());
#pragma unroll
      for (int word = 0; word < 4; ++word)
#pragma unroll
        for (int r = 0; r < 4; ++r) mark(p[n + word][r], words[word], r);
    }
  }
}

template <class T, int N>
__device__ inline void drop(const AttentionArguments<T>& a, float (&p)[N][4], const Pair& pair, int head) {
  mark_dropped<false>(a, p, pair, head);
#pragma unroll
  for (int n = 0; n < N; ++n)
#pragma unroll
    for (int r = 0; r < 4; ++r) p[n][r] = fmaxf(p[n][r], 0.f) * a.dropout.scale;
}

// Over the four lanes that hold a row of a result.
__device__ inline float sum_of_row(float x) {
  x += __shfl_xor_sync(all_lanes, x, 1);
  return x + __shfl_xor_sync(all_lanes, x, 2);
}
__device__ inline float max_of_row(float x) {
  x = fmaxf(x, __shfl_xor_sync(all_lanes, x, 1));
  return fmaxf(x, __shfl_xor_sync(all_lanes, x, 2));
}

// The running softmax of a warp's 16 rows, two of which a lane has a part in.
struct Softmax {
  float most[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};

  // Turns scores into weights, 2^(scale s) / sum; returns what the sums so far shrink by. scale > 0.
  template <int N>
  __device__ void add(float (&s)[N][4], float scale, float (&shrink)[2]) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float now = s[0][2 * half];
#pragma unroll
      for (int n = 0; n < N; ++n) now = fmaxf(now, fmaxf(s[n][2 * half], s[n][2 * half + 1]));
      now = fmaxf(most[half], max_of_row(now) * scale);
      const float base = now == -INFINITY ? 0.f : now;  // a row that has seen no key yet
      shrink[half] = exp2f(most[half] - base);
      most[half] = now;
      sum[half] *= shrink[half];
#pragma unroll
      for (int n = 0; n < N; ++n)
        for (int r = 2 * half; r < 2 * half + 2; ++r) sum[half] += s[n][r] = exp2f(fmaf(s[n][r], scale, -base));
    }
  }
};

// Puts bias and mask into the scores of a warp's 16 queries. Returns the factor that makes them exponents of 2: where
// nothing is added it need not be multiplied in here, as it costs nothing in the softmax.
template <class T, int N>
__device__ inline float finish_scores(const AttentionArguments<T>& a, float (&s)[N][4], const Pair& pair, int head) {
  float scale = a.scale * log2_e;
  if (a.has_bias() || !(scale > 0)) {
#pragma unroll
    for (int n = 0; n < N; ++n)
#pragma unroll
      for (int r = 0; r < 4; ++r) {
        const int distance = pair.distance(pair.q0 + row_in_tile(r), pair.k0 + col_in_tile(n, r));
        s[n][r] = s[n][r] * scale + a.bias.of(head, distance) * log2_e;
      }
    scale = 1;
  }
  if (pair.at_edge(a.visibility)) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int i = pair.q0 + row_in_tile(2 * half);
      const int first = a.visibility.first(pair.s, i), end = i < pair.q_end ? a.visibility.end(pair.s, i) : 0;
#pragma unroll
      for (int n = 0; n < N; ++n)
#pragma unroll
        for (int r = 2 * half; r < 2 * half + 2; ++r) {
          const int j = pair.k0 + col_in_tile(n, r);
          if (j < first || j >= end) s[n][r] = -INFINITY;
        }
    }
  }
  return scale;
}

// Stores a warp's 16 rows of D columns, times `factor`.
template <int D, class T>
__device__ inline void store_gradient(const Rows<T>& to, const float (&acc)[D / 8][4], int64_t first, int valid,
                                      int64_t col, int head_dim, float factor, bool accumulate) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = row_in_tile(2 * half);
    if (row >= valid) continue;
#pragma unroll
    for (int d = 0; d < D / 8; ++d) {
      const float pair_of[2] = {acc[d][2 * half] * factor, acc[d][2 * half + 1] * factor};
      if (col_in_tile(d, 0) < head_dim) put(to[first + row] + col + col_in_tile(d, 0), pair_of, accumulate);
    }
  }
}

}  // namespace mixtape::cuda
