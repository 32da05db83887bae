// Flash attention on tensor cores (mma.sync, sm_80 and later), for fp16 and bf16 and head dimensions up to 128.
//
// Source: FlashAttention-2 (arXiv 2307.08691). A block takes 64 rows of one head, 16 a warp, and walks the other side
// in tiles that cp.async brings two deep. Scores and their gradients live in registers: the layout of a product's
// result is that of the next one's operand. Backward has two kernels, so that every gradient has one owner: dK, dV by a
// block of keys over the queries of all heads that share them, dQ by a block of queries. Seven products in place of
// five, no atomics, the same bits every time.
//
// FLOPs for each pair of a visible tile: 4 D forward, 14 D backward. Bytes: each of q, k, v, out and their gradients
// crosses once a block; k and v mostly from the L2 cache. Bound by the tensor cores from some hundred keys on. Tiles
// that no query of the block sees are not visited, and only tiles at an edge are masked. Head dimensions below D are
// padded by columns of zeros, which never leave shared memory.
#pragma once

#include "cuda/attention/scores.h"
#include "cuda/device/cp_async.h"
#include "cuda/device/ldmatrix.h"
#include "cuda/device/mma_m16n8k16.h"

namespace mixtape::cuda {

constexpr int flash_rows = 64, flash_threads = 128;

// Starts to copy `rows` rows of one head; rows from `valid` on, and columns from head_dim on, become zeros.
template <int D, class T>
__device__ inline void copy_tile(T* to, const Rows<const T>& from, int64_t first, int64_t col, int rows, int valid,
                                 int head_dim) {
  for (int i = int(threadIdx.x); i < rows * D / 8; i += flash_threads) {
    const int r = i / (D / 8), c = i % (D / 8) * 8;
    const bool real = r < valid && c < head_dim;
    copy_async(to + at<D>(r, c), real ? from[first + r] + col + c : from.data, real ? 16 : 0);
  }
}

// Operands of a product: docs in device/ldmatrix.h.
template <int D, class T>
__device__ inline void operand_a(uint32_t (&a)[4], const T* tile, int row, int col) {
  ldmatrix<false>(a, tile + at<D>(row + lane_id() % 16, col + lane_id() / 16 * 8));
}
template <int D, class T>
__device__ inline void operand_b(uint32_t (&b)[4], const T* tile, int row, int col) {
  ldmatrix<false>(b, tile + at<D>(row + lane_id() % 8 + lane_id() / 16 * 8, col + lane_id() / 8 % 2 * 8));
}
template <int D, class T>
__device__ inline void operand_b_transposed(uint32_t (&b)[4], const T* tile, int row, int col) {
  ldmatrix<true>(b, tile + at<D>(row + lane_id() % 16, col + lane_id() / 16 * 8));
}

// s[16 x N] = a b^T: a's rows from `row`, all N rows of b; both [rows][D].
template <int D, int N, class T>
__device__ inline void product_of_rows(float (&s)[N / 8][4], const T* a, int row, const T* b) {
#pragma unroll
  for (int n = 0; n < N / 8; ++n)
    for (int i = 0; i < 4; ++i) s[n][i] = 0;
#pragma unroll
  for (int d = 0; d < D; d += 16) {
    uint32_t left[4];
    operand_a<D>(left, a, row, d);
#pragma unroll
    for (int n = 0; n < N; n += 16) {
      uint32_t right[4];
      operand_b<D>(right, b, n, d);
      mma_m16n8k16<T>(s[n / 8], left, right[0], right[1]);
      mma_m16n8k16<T>(s[n / 8 + 1], left, right[2], right[3]);
    }
  }
}

// acc[16 x D] += p x: p [16 x N] as it lies in registers, rounded to T; x [N][D].
template <int D, int N, class T>
__device__ inline void add_product(float (&acc)[D / 8][4], const float (&p)[N / 8][4], const T* x) {
#pragma unroll
  for (int n = 0; n < N; n += 16) {
    const float(&low)[4] = p[n / 8], (&high)[4] = p[n / 8 + 1];
    const uint32_t left[4] = {pack<T>(low[0], low[1]), pack<T>(low[2], low[3]), pack<T>(high[0], high[1]),
                              pack<T>(high[2], high[3])};
#pragma unroll
    for (int d = 0; d < D; d += 16) {
      uint32_t right[4];
      operand_b_transposed<D>(right, x, n, d);
      mma_m16n8k16<T>(acc[d / 8], left, right[0], right[1]);
      mma_m16n8k16<T>(acc[d / 8 + 1], left, right[2], right[3]);
    }
  }
}

template <int D, class T>
struct FlashStorage {
  T q[flash_rows * D], k[2][flash_rows * D], v[2][flash_rows * D];
};

// One block: 64 queries of one head at a time.
template <int D, class T>
__global__ void __launch_bounds__(flash_threads) flash_forward_kernel(AttentionArguments<T> a) {
  auto& s = shared_memory<FlashStorage<D, T>>();
  const int head = int(blockIdx.y);
  const int64_t q_col = int64_t(head) * a.head_dim, kv_col = int64_t(a.kv_head(head)) * a.head_dim;

  for (int t = int(blockIdx.x); t < *a.list.count; t += int(gridDim.x)) {
    const Segment segment = a.segments[a.list.tiles[t].segment];
    const int q0 = a.list.tiles[t].first, q_end = std::min(segment.q_len, q0 + flash_rows);
    const int k_begin = a.visibility.first(segment, q0) / flash_rows * flash_rows;
    const int k_end = a.visibility.end(segment, q_end - 1);
    const auto fetch = [&](int k0, int stage) {
      const int64_t row = int64_t(segment.k_start) + k0;
      copy_tile<D>(s.k[stage], a.k, row, kv_col, flash_rows, segment.k_len - k0, a.head_dim);
      copy_tile<D>(s.v[stage], a.v, row, kv_col, flash_rows, segment.k_len - k0, a.head_dim);
    };
    __syncthreads();  // the last tile's queries, keys and values have been read
    copy_tile<D>(s.q, a.q, int64_t(segment.q_start) + q0, q_col, flash_rows, q_end - q0, a.head_dim);
    if (k_begin < k_end) fetch(k_begin, 0);
    copy_async_commit();

    float acc[D / 8][4] = {};
    Softmax softmax;
    int stage = 0;
    for (int k0 = k_begin; k0 < k_end; k0 += flash_rows, stage = 1 - stage) {
      if (k0 + flash_rows < k_end) fetch(k0 + flash_rows, 1 - stage);
      copy_async_commit();
      copy_async_wait<1>();
      __syncthreads();
      const Pair pair{segment, q0, q_end, k0, flash_rows, flash_rows};
      float p[flash_rows / 8][4], shrink[2];
      product_of_rows<D, flash_rows>(p, s.q, warp_id() * 16, s.k[stage]);
      const float scale = finish_scores(a, p, pair, head);
      softmax.add(p, scale, shrink);
      if (a.dropout.threshold) drop(a, p, pair, head);
#pragma unroll
      for (int d = 0; d < D / 8; ++d)
        for (int r = 0; r < 4; ++r) acc[d][r] *= shrink[r / 2];
      add_product<D, flash_rows>(acc, p, s.v[stage]);
      __syncthreads();  // all warps are done with this stage before it is filled again
    }
    copy_async_wait<0>();
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float sum = sum_of_row(softmax.sum[half]), inverse = sum > 0 ? 1.f / sum : 0.f;
      const int i = q0 + row_in_tile(2 * half);
      if (i >= q_end) continue;
      const int64_t row = int64_t(segment.q_start) + i;
#pragma unroll
      for (int d = 0; d < D / 8; ++d) {
        const float pair_of[2] = {acc[d][2 * half] * inverse, acc[d][2 * half + 1] * inverse};
        if (col_in_tile(d, 0) < a.head_dim) store(a.out[row] + q_col + col_in_tile(d, 0), pair_of);
      }
      if (lane_id() % 4 == 0 && a.lse)
        a.lse[head * a.rows_q + row] = sum > 0 ? (softmax.most[half] + log2f(sum)) * ln_2 : -INFINITY;
    }
  }
}

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
      float p[other / 8][4], ds[other / 8][4];
      product_of_rows<D, other>(p, s.q, warp_id() * 16, s.k[stage]);
      product_of_rows<D, other>(ds, s.dout, warp_id() * 16, s.v[stage]);
#pragma unroll
      for (int n = 0; n < other / 8; ++n)
        for (int r = 0; r < 4; ++r)
          weigh(a, pair, edge, head, q0 + row_in_tile(r), k0 + col_in_tile(n, r), p[n][r], ds[n][r]);
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
      float p[other / 8][4], ds[other / 8][4];
      product_of_rows<D, other>(p, s.k, warp_id() * 16, s.q[stage]);
      product_of_rows<D, other>(ds, s.v, warp_id() * 16, s.dout[stage]);
#pragma unroll
      for (int n = 0; n < other / 8; ++n)
        for (int r = 0; r < 4; ++r)
          weigh(a, pair, edge, head, q0 + col_in_tile(n, r), k0 + row_in_tile(r), p[n][r], ds[n][r]);
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
