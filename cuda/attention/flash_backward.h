// Backward on tensor cores. A block takes 64 rows of one head, 16 a warp, and walks the other side in tiles that
// cp.async brings two deep. Two kernels, so that every gradient has one owner: dK, dV by a block of keys over the
// queries of all heads that share them, dQ by a block of queries. Seven products in place of five, no atomics, the same
// bits every time.
//
// FLOPs for each pair of a visible tile: 14 D. Bytes: each of q, k, v, out and their gradients crosses once a block;
// the passing side mostly from the L2 cache. Bound by the tensor cores from some hundred rows on.
#pragma once

#include "cuda/attention/flash.h"

namespace mixtape::cuda {

// p and ds of element (i, j), whose score's product is qk and whose dout . v is dp; ds without the scale.
template <class T>
__device__ inline void weigh(const AttentionBackwardArguments<T>& a, const Pair& pair, bool edge, int head, int i,
                             int j, float& qk, float& dp) {
  if (edge && !pair.sees(a.visibility, i, j)) {
    qk = dp = 0;
    return;
  }
  const int64_t at = head * a.rows_q + pair.s.q_start + i;
  float score = qk * a.scale;
  if (a.has_bias()) score += a.bias.of(head, pair.distance(i, j));
  const float p = exp2f((score - a.lse[at]) * log2_e);
  const float factor = a.dropout.factor(head, pair.s.q_start + i, pair.s.k_start + j);
  qk = p * factor;
  dp = p * (dp * factor - a.delta[at]);
}

// Keys that a block of queries takes at a time in backward; at D = 128 fewer, for the registers and shared memory.
template <int D>
constexpr int flash_other = D <= 64 ? 64 : 32;

template <int D, class T>
struct FlashQueries {  // dQ: a block's queries, and passing keys
  T q[flash_rows * D], dout[flash_rows * D], k[2][flash_other<D> * D], v[2][flash_other<D> * D];
};

template <int D, class T>
__global__ void __launch_bounds__(flash_threads) flash_dq_kernel(AttentionBackwardArguments<T> a) {
  constexpr int other = flash_other<D>;
  auto& s = shared_memory<FlashQueries<D, T>>();
  const int head = int(blockIdx.y);
  const int64_t q_col = int64_t(head) * a.head_dim, kv_col = int64_t(a.kv_head(head)) * a.head_dim;

  for (int t = int(blockIdx.x); t < *a.list.count; t += int(gridDim.x)) {
    const Segment segment = a.segments[a.list.tiles[t].segment];
    const int q0 = a.list.tiles[t].first, q_end = std::min(segment.q_len, q0 + flash_rows);
    const int64_t q_row = int64_t(segment.q_start) + q0;
    const int k_begin = a.visibility.first(segment, q0) / other * other;
    const int k_end = a.visibility.end(segment, q_end - 1);
    const auto fetch = [&](int k0, int stage) {
      const int64_t row = int64_t(segment.k_start) + k0;
      copy_tile<D>(s.k[stage], a.k, row, kv_col, other, segment.k_len - k0, a.head_dim);
      copy_tile<D>(s.v[stage], a.v, row, kv_col, other, segment.k_len - k0, a.head_dim);
    };
    __syncthreads();
    copy_tile<D>(s.q, a.q, q_row, q_col, flash_rows, q_end - q0, a.head_dim);
    copy_tile<D>(s.dout, a.dout, q_row, q_col, flash_rows, q_end - q0, a.head_dim);
    if (k_begin < k_end) fetch(k_begin, 0);
    copy_async_commit();

    float dq[D / 8][4] = {};
    int stage = 0;
    for (int k0 = k_begin; k0 < k_end; k0 += other, stage = 1 - stage) {
      if (k0 + other < k_end) fetch(k0 + other, 1 - stage);
      copy_async_commit();
      copy_async_wait<1>();
      __syncthreads();
      const Pair pair{segment, q0, q_end, k0, flash_rows, other};
      const bool edge = pair.at_edge(a.visibility);
      float p[1][other / 8][4], ds[1][other / 8][4];
      product_of_rows<D, other>(p, s.q, s.k[stage]);
      product_of_rows<D, other>(ds, s.dout, s.v[stage]);
#pragma unroll
      for (int n = 0; n < other / 8; ++n)
        for (int r = 0; r < 4; ++r)
          weigh(a, pair, edge, head, q0 + row_in_tile(r), k0 + col_in_tile(n, r), p[0][n][r], ds[0][n][r]);
      add_product<D, other>(dq, ds, s.k[stage]);
      __syncthreads();
    }
    copy_async_wait<0>();
    store_gradient<D>(a.dq, dq, q_row, q_end - q0, q_col, a.head_dim, a.scale, a.add_dq);
  }
}

template <int D, class T>
struct FlashKeys {  // dK, dV: a block's keys, and passing queries
  T k[flash_rows * D], v[flash_rows * D], q[2][flash_other<D> * D], dout[2][flash_other<D> * D];
};

// The transposed scores K q^T, so that weights and their gradients are operands of dV and dK as they lie.
template <int D, class T>
__global__ void __launch_bounds__(flash_threads) flash_dkv_kernel(AttentionBackwardArguments<T> a) {
  constexpr int other = flash_other<D>;
  auto& s = shared_memory<FlashKeys<D, T>>();
  const int group = a.n_heads / a.n_kv_heads, first_head = int(blockIdx.y) * group;
  const int64_t kv_col = int64_t(blockIdx.y) * a.head_dim;

  for (int t = int(blockIdx.x); t < *a.list.count; t += int(gridDim.x)) {
    const Segment segment = a.segments[a.list.tiles[t].segment];
    const int k0 = a.list.tiles[t].first, k_end = std::min(segment.k_len, k0 + flash_rows);
    const int64_t k_row = int64_t(segment.k_start) + k0;
    // Steps are (head, tile of queries); `next` skips tiles of which no query sees a key of this block.
    const int tiles = (segment.q_len + other - 1) / other, steps = group * tiles;
    const auto seen = [&](int step) {
      const int q0 = step % tiles * other, q_last = std::min(segment.q_len, q0 + other) - 1;
      return a.visibility.first(segment, q0) < k_end && a.visibility.end(segment, q_last) > k0;
    };
    const auto next = [&](int step) {
      while (step < steps && !seen(step)) ++step;
      return step;
    };
    const auto fetch = [&](int step, int stage) {
      const int q0 = step % tiles * other;
      const int64_t row = int64_t(segment.q_start) + q0, col = int64_t(first_head + step / tiles) * a.head_dim;
      copy_tile<D>(s.q[stage], a.q, row, col, other, segment.q_len - q0, a.head_dim);
      copy_tile<D>(s.dout[stage], a.dout, row, col, other, segment.q_len - q0, a.head_dim);
    };
    __syncthreads();
    copy_tile<D>(s.k, a.k, k_row, kv_col, flash_rows, k_end - k0, a.head_dim);
    copy_tile<D>(s.v, a.v, k_row, kv_col, flash_rows, k_end - k0, a.head_dim);
    int step = next(0), stage = 0;
    if (step < steps) fetch(step, 0);
    copy_async_commit();

    float dk[D / 8][4] = {}, dv[D / 8][4] = {};
    while (step < steps) {
      const int after = next(step + 1);
      if (after < steps) fetch(after, 1 - stage);
      copy_async_commit();
      copy_async_wait<1>();
      __syncthreads();
      const int q0 = step % tiles * other, head = first_head + step / tiles;
      const Pair pair{segment, q0, std::min(segment.q_len, q0 + other), k0, other, flash_rows};
      const bool edge = pair.at_edge(a.visibility);
      float p[1][other / 8][4], ds[1][other / 8][4];
      product_of_rows<D, other>(p, s.k, s.q[stage]);
      product_of_rows<D, other>(ds, s.v, s.dout[stage]);
#pragma unroll
      for (int n = 0; n < other / 8; ++n)
        for (int r = 0; r < 4; ++r)
          weigh(a, pair, edge, head, q0 + col_in_tile(n, r), k0 + row_in_tile(r), p[0][n][r], ds[0][n][r]);
      add_product<D, other>(dv, p, s.dout[stage]);
      add_product<D, other>(dk, ds, s.q[stage]);
      __syncthreads();
      step = after;
      stage = 1 - stage;
    }
    copy_async_wait<0>();
    store_gradient<D>(a.dk, dk, k_row, k_end - k0, kv_col, a.head_dim, a.scale, a.add_dk);
    store_gradient<D>(a.dv, dv, k_row, k_end - k0, kv_col, a.head_dim, 1.f, a.add_dv);
  }
}

}  // namespace mixtape::cuda
