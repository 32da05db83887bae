// Attention for any type, head dimension up to 256, bias and mask, in float arithmetic: the path for fp32, and for what
// the tensor cores' kernels do not take.
//
// A warp owns R rows, of queries (forward, dQ) or of keys (dK, dV), and walks the other side 32 rows at a time, a lane
// each: scores lie across lanes, then go through shared memory to be multiplied with whole rows. T x T is never stored.
// FLOPs: 4 D for each visible pair forward, 14 D backward (both scores are made twice, once for dQ and once for dK, dV,
// so that each gradient has one owner and no atomics are needed). Bytes: q, out once, k, v once for each 16 queries.
#pragma once

#include "cuda/attention/problem.h"

namespace mixtape::cuda {

constexpr int tiled_warps = 4, tiled_threads = tiled_warps * warp_size, other_rows = 32;

// Copies `rows` rows of one head into shared memory, as floats `stride` apart; those from `valid` on become zeros.
template <class T>
__device__ inline void load_rows(float* to, int stride, const Rows<const T>& from, int64_t first, int64_t col, int rows,
                                 int valid, int head_dim) {
  for (int i = int(threadIdx.x); i < rows * head_dim; i += tiled_threads) {
    const int r = i / head_dim, c = i % head_dim;
    to[r * stride + c] = r < valid ? to_float(from[first + r][col + c]) : 0.f;
  }
}

__device__ inline float dot_product(const float* a, const float* b, int n) {
  float sum = 0;
  for (int i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

// acc[i] += sum over the 32 other rows of factor[row] * x[row][lane + 32 i].
template <int DI>
__device__ inline void add_rows(float (&acc)[DI], const float* factor, const float* x, int stride, int head_dim) {
  for (int row = 0; row < other_rows; ++row) {
    const float f = factor[row];
#pragma unroll
    for (int i = 0; i < DI; ++i) {
      const int c = lane_id() + warp_size * i;
      if (c < head_dim) acc[i] += f * x[row * stride + c];
    }
  }
}

// One block: tiled_warps * R queries of one head at a time. DI: values of a head that a lane holds.
template <class T, int R, int DI>
__global__ void __launch_bounds__(tiled_threads) attention_kernel(AttentionArguments<T> a) {
  constexpr int queries = tiled_warps * R;
  const int D = a.head_dim, padded = D + 1, head = int(blockIdx.y), warp = warp_id(), lane = lane_id();
  float* q = shared_array<float>(queries * D + other_rows * (padded + D) + queries * other_rows);
  float* k = q + queries * D;  // rows are D + 1 apart, so that lanes read different banks
  float* v = k + other_rows * padded;
  float* weights = v + other_rows * D + warp * R * other_rows;

  for (int t = int(blockIdx.x); t < *a.list.count; t += int(gridDim.x)) {
    const Segment s = a.segments[a.list.tiles[t].segment];
    const int q0 = a.list.tiles[t].first, q_end = std::min(s.q_len, q0 + queries);
    __syncthreads();  // the last tile's queries and keys have been read
    load_rows(q, D, a.q, int64_t(s.q_start) + q0, int64_t(head) * D, queries, q_end - q0, D);

    float acc[R][DI] = {}, most[R], sum[R] = {};
    for (int r = 0; r < R; ++r) most[r] = -INFINITY;
    const int k_begin = a.visibility.first(s, q0) / other_rows * other_rows, k_end = a.visibility.end(s, q_end - 1);
    for (int k0 = k_begin; k0 < k_end; k0 += other_rows) {
      __syncthreads();
      const int64_t col = int64_t(a.kv_head(head)) * D;
      load_rows(k, padded, a.k, int64_t(s.k_start) + k0, col, other_rows, s.k_len - k0, D);
      load_rows(v, D, a.v, int64_t(s.k_start) + k0, col, other_rows, s.k_len - k0, D);
      __syncthreads();
      for (int r = 0; r < R; ++r) {
        const int i = q0 + warp * R + r, j = k0 + lane;
        const bool sees = i < q_end && j >= a.visibility.first(s, i) && j < a.visibility.end(s, i);
        float score = -INFINITY;
        if (sees)
          score = dot_product(q + (warp * R + r) * D, k + lane * padded, D) * a.scale +
                  a.bias.of(head, j - (i + s.k_len - s.q_len));
        const float now = fmaxf(most[r], warp_max(score));
        const float base = now == -INFINITY ? 0.f : now;  // a row that has seen no key yet
        const float shrink = expf(most[r] - base), p = sees ? expf(score - base) : 0.f;
        most[r] = now;
        sum[r] = sum[r] * shrink + p;
        for (int c = 0; c < DI; ++c) acc[r][c] *= shrink;
        weights[r * other_rows + lane] = sees ? p * a.dropout.factor(head, s.q_start + i, s.k_start + j) : 0.f;
      }
      __syncwarp();
      for (int r = 0; r < R; ++r) add_rows(acc[r], weights + r * other_rows, v, D, D);
      __syncwarp();
    }
    for (int r = 0; r < R; ++r) {
      const float total = warp_sum(sum[r]), inverse = total > 0 ? 1.f / total : 0.f;
      const int i = q0 + warp * R + r;
      if (i >= q_end) continue;
      const int64_t row = int64_t(s.q_start) + i;
      for (int c = 0; c < DI; ++c)
        if (lane + warp_size * c < D)
          a.out[row][int64_t(head) * D + lane + warp_size * c] = from_float<T>(acc[r][c] * inverse);
      if (lane == 0 && a.lse) a.lse[head * a.rows_q + row] = total > 0 ? most[r] + logf(total) : -INFINITY;
    }
  }
}

// delta[head, row] = sum of dout * out. A warp an element.
template <class T>
__global__ void __launch_bounds__(tiled_threads)
    attention_delta_kernel(float* delta, Rows<const T> dout, Rows<const T> out, int64_t rows, int head_dim) {
  const int64_t row = int64_t(blockIdx.x) * tiled_warps + warp_id(), col = int64_t(blockIdx.y) * head_dim;
  if (row >= rows) return;  // a whole warp, and no barrier follows
  float sum = 0;
  for (int c = lane_id(); c < head_dim; c += warp_size)
    sum += to_float(dout[row][col + c]) * to_float(out[row][col + c]);
  sum = warp_sum(sum);
  if (lane_id() == 0) delta[blockIdx.y * rows + row] = sum;
}

// p, and ds, the gradient of the loss by the score, of one pair; 0 for pairs that do not see each other.
struct PairGradient {
  float kept, ds;  // p with its dropout; ds without the scale
};
template <class T>
__device__ inline PairGradient pair_gradient(const AttentionBackwardArguments<T>& a, const Segment& s, int head, int i,
                                             int j, float qk, float dout_v, float lse, float delta) {
  const float score = qk * a.scale + a.bias.of(head, j - (i + s.k_len - s.q_len));
  const float p = expf(score - lse), factor = a.dropout.factor(head, s.q_start + i, s.k_start + j);
  return {p * factor, p * (dout_v * factor - delta)};
}

// dQ, and the sums of ds by bucket: a block's queries, as forward.
template <class T, int R, int DI>
__global__ void __launch_bounds__(tiled_threads) attention_dq_kernel(AttentionBackwardArguments<T> a) {
  constexpr int queries = tiled_warps * R;
  const int D = a.head_dim, padded = D + 1, head = int(blockIdx.y), warp = warp_id(), lane = lane_id();
  float* q =
      shared_array<float>(2 * queries * D + 2 * other_rows * padded + queries * other_rows + tiled_warps * a.buckets);
  float* dout = q + queries * D;
  float* k = dout + queries * D;
  float* v = k + other_rows * padded;
  float* ds = v + other_rows * padded + warp * R * other_rows;
  float* all_sums = v + other_rows * padded + queries * other_rows;
  float* sums = all_sums + warp * a.buckets;

  for (int t = int(blockIdx.x); t < *a.list.count; t += int(gridDim.x)) {
    const Segment s = a.segments[a.list.tiles[t].segment];
    const int q0 = a.list.tiles[t].first, q_end = std::min(s.q_len, q0 + queries);
    const int64_t q_row = int64_t(s.q_start) + q0, kv_col = int64_t(a.kv_head(head)) * D;
    __syncthreads();
    load_rows(q, D, a.q, q_row, int64_t(head) * D, queries, q_end - q0, D);
    load_rows(dout, D, a.dout, q_row, int64_t(head) * D, queries, q_end - q0, D);
    for (int b = lane; b < a.buckets; b += warp_size) sums[b] = 0;

    float acc[R][DI] = {};
    const int k_begin = a.visibility.first(s, q0) / other_rows * other_rows, k_end = a.visibility.end(s, q_end - 1);
    for (int k0 = k_begin; k0 < k_end; k0 += other_rows) {
      __syncthreads();
      load_rows(k, padded, a.k, int64_t(s.k_start) + k0, kv_col, other_rows, s.k_len - k0, D);
      load_rows(v, padded, a.v, int64_t(s.k_start) + k0, kv_col, other_rows, s.k_len - k0, D);
      __syncthreads();
      for (int r = 0; r < R; ++r) {
        const int i = q0 + warp * R + r, j = k0 + lane;
        const bool sees = i < q_end && j >= a.visibility.first(s, i) && j < a.visibility.end(s, i);
        float gradient = 0;
        if (sees) {
          const int64_t at = head * a.rows_q + s.q_start + i;
          gradient = pair_gradient(a, s, head, i, j, dot_product(q + (warp * R + r) * D, k + lane * padded, D),
                                   dot_product(dout + (warp * R + r) * D, v + lane * padded, D), a.lse[at], a.delta[at])
                         .ds;
        }
        ds[r * other_rows + lane] = gradient;
      }
      __syncwarp();
      for (int r = 0; r < R; ++r) add_rows(acc[r], ds + r * other_rows, k, padded, D);
      for (int b = lane; b < a.buckets; b += warp_size)  // a lane owns its buckets: no atomics
        for (int r = 0; r < R; ++r)
          for (int j = 0; j < other_rows; ++j)
            if (a.bias.bucket(k0 + j - (q0 + warp * R + r + s.k_len - s.q_len)) == b) sums[b] += ds[r * other_rows + j];
      __syncwarp();
    }
    for (int r = 0; r < R; ++r) {
      const int i = q0 + warp * R + r;
      if (i >= q_end || !a.dq) continue;
      for (int c = 0; c < DI; ++c)
        if (lane + warp_size * c < D)
          put(a.dq[int64_t(s.q_start) + i] + int64_t(head) * D + lane + warp_size * c, acc[r][c] * a.scale, a.add_dq);
    }
    if (!a.relative_parts) continue;
    __syncthreads();
    for (int b = int(threadIdx.x); b < a.buckets; b += tiled_threads) {
      float sum = 0;
      for (int w = 0; w < tiled_warps; ++w) sum += all_sums[w * a.buckets + b];
      a.relative_parts[(int64_t(t) * a.n_heads + head) * a.buckets + b] = sum;
    }
  }
}

// dK and dV: a block's keys of one key/value head; the queries of all heads that share it pass by.
template <class T, int R, int DI>
__global__ void __launch_bounds__(tiled_threads) attention_dkv_kernel(AttentionBackwardArguments<T> a) {
  constexpr int keys = tiled_warps * R;
  const int D = a.head_dim, padded = D + 1, group = a.n_heads / a.n_kv_heads, warp = warp_id(), lane = lane_id();
  float* k = shared_array<float>(2 * keys * D + 2 * other_rows * padded + 2 * keys * other_rows);
  float* v = k + keys * D;
  float* q = v + keys * D;
  float* dout = q + other_rows * padded;
  float* kept = dout + other_rows * padded + warp * 2 * R * other_rows;
  float* ds = kept + R * other_rows;

  for (int t = int(blockIdx.x); t < *a.list.count; t += int(gridDim.x)) {
    const Segment s = a.segments[a.list.tiles[t].segment];
    const int k0 = a.list.tiles[t].first, k_end = std::min(s.k_len, k0 + keys);
    const int64_t k_row = int64_t(s.k_start) + k0, kv_col = int64_t(blockIdx.y) * D;
    __syncthreads();
    load_rows(k, D, a.k, k_row, kv_col, keys, k_end - k0, D);
    load_rows(v, D, a.v, k_row, kv_col, keys, k_end - k0, D);

    float dk[R][DI] = {}, dv[R][DI] = {};
    for (int head = int(blockIdx.y) * group; head < int(blockIdx.y + 1) * group; ++head)
      for (int q0 = 0; q0 < s.q_len; q0 += other_rows) {
        const int q_end = std::min(s.q_len, q0 + other_rows);
        if (a.visibility.first(s, q0) >= k_end || a.visibility.end(s, q_end - 1) <= k0) continue;  // none sees any
        __syncthreads();
        load_rows(q, padded, a.q, int64_t(s.q_start) + q0, int64_t(head) * D, other_rows, q_end - q0, D);
        load_rows(dout, padded, a.dout, int64_t(s.q_start) + q0, int64_t(head) * D, other_rows, q_end - q0, D);
        __syncthreads();
        for (int r = 0; r < R; ++r) {
          const int i = q0 + lane, j = k0 + warp * R + r;
          const bool sees = i < q_end && j >= a.visibility.first(s, i) && j < a.visibility.end(s, i);
          PairGradient g{0, 0};
          if (sees) {
            const int64_t at = head * a.rows_q + s.q_start + i;
            g = pair_gradient(a, s, head, i, j, dot_product(k + (warp * R + r) * D, q + lane * padded, D),
                              dot_product(v + (warp * R + r) * D, dout + lane * padded, D), a.lse[at], a.delta[at]);
          }
          kept[r * other_rows + lane] = g.kept;
          ds[r * other_rows + lane] = g.ds;
        }
        __syncwarp();
        for (int r = 0; r < R; ++r) {
          add_rows(dv[r], kept + r * other_rows, dout, padded, D);
          add_rows(dk[r], ds + r * other_rows, q, padded, D);
        }
        __syncwarp();
      }
    for (int r = 0; r < R; ++r) {
      const int j = k0 + warp * R + r;
      if (j >= k_end) continue;
      for (int c = 0; c < DI; ++c) {
        const int d = lane + warp_size * c;
        if (d >= D) continue;
        const int64_t row = int64_t(s.k_start) + j;
        if (a.dk) put(a.dk[row] + kv_col + d, dk[r][c] * a.scale, a.add_dk);
        if (a.dv) put(a.dv[row] + kv_col + d, dv[r][c], a.add_dv);
      }
    }
  }
}

}  // namespace mixtape::cuda
