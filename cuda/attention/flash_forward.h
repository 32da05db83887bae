// Forward on tensor cores. A block takes 128 queries of one head, two tiles of 64 of which each warp has 16 rows, and
// walks the keys 64 at a time.
//
// FLOPs for each pair of a visible tile of 64 x 64: 4 D. Bytes: q and out cross once, k and v once a block, mostly from
// the L2 cache: 64 FLOPs a byte of k and v for each tile of queries. A warp reads keys and values from shared memory
// once for 32 queries: with 16 the reading alone takes as long as the products (D = 64, a tile: 64 KiB at 128 bytes a
// cycle, 512 cycles; 1 MFLOP at 2048 a cycle, 512 cycles).
//
// Keys and values have one place each, so that two blocks fit a multiprocessor: values come while the scores are
// multiplied, the next keys come during softmax and the sum.
#pragma once

#include "cuda/attention/flash.h"

namespace mixtape::cuda {

// Keys of a step; at D = 128 fewer, for the registers.
template <int D>
constexpr int forward_keys_of = D <= 64 ? 64 : 32;

template <int D, class T>
struct FlashForwardStorage {
  T q[flash_queries * D], k[forward_keys_of<D> * D], v[forward_keys_of<D> * D];
};

// What a warp keeps of 16 queries.
template <int D>
struct FlashRows {
  float acc[D / 8][4] = {};
  Softmax softmax;
};

// Tiles of queries `first` to first + M - 1 by the tile of keys in shared memory. pair_of(m): the m-th tile and that
// one. between(): all warps are done with the keys, and the values are there.
template <int first, int M, bool dropout, int D, class T, class PairOf, class Between>
__device__ inline void forward_step(const AttentionArguments<T>& a, FlashForwardStorage<D, T>& s,
                                    FlashRows<D> (&rows)[2], int head, PairOf&& pair_of, Between&& between) {
  constexpr int keys = forward_keys_of<D>;
  float p[M][keys / 8][4];
  products_of_rows<D, keys>(p, s.q, first * flash_rows + warp_id() * 16, flash_rows, s.k);
  between();
#pragma unroll
  for (int m = 0; m < M; ++m) {
    FlashRows<D>& mine = rows[first + m];
    const Pair pair = pair_of(first + m);
    float shrink[2];
    const float scale = finish_scores(a, p[m], pair, head);
    mine.softmax.add(p[m], scale, shrink);
    if constexpr (dropout) drop(a, p[m], pair, head);
    if (!__any_sync(all_lanes, shrink[0] != 1 || shrink[1] != 1)) continue;  // mostly, from some keys on
#pragma unroll
    for (int d = 0; d < D / 8; ++d)
      for (int r = 0; r < 4; ++r) mine.acc[d][r] *= shrink[r / 2];
  }
  add_products<D, keys>([&](int m) -> float(&)[D / 8][4] { return rows[first + m].acc; }, p, s.v);
}

// A warp's 16 rows of out, and their lse.
template <int D, class T>
__device__ inline void store_rows(const AttentionArguments<T>& a, const FlashRows<D>& rows, const Pair& pair,
                                  int head) {
  const int64_t col = int64_t(head) * a.head_dim;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float sum = sum_of_row(rows.softmax.sum[half]), inverse = sum > 0 ? 1.f / sum : 0.f;
    const int i = pair.q0 + row_in_tile(2 * half);
    if (i >= pair.q_end) continue;
    const int64_t row = int64_t(pair.s.q_start) + i;
#pragma unroll
    for (int d = 0; d < D / 8; ++d) {
      const float pair_of[2] = {rows.acc[d][2 * half] * inverse, rows.acc[d][2 * half + 1] * inverse};
      if (col_in_tile(d, 0) < a.head_dim) store(a.out[row] + col + col_in_tile(d, 0), pair_of);
    }
    if (lane_id() % 4 == 0 && a.lse)
      a.lse[head * a.rows_q + row] = sum > 0 ? (rows.softmax.most[half] + log2f(sum)) * ln_2 : -INFINITY;
  }
}

// Of causal attention the last tiles have most keys, and begin first.
template <int D, bool dropout, class T>
__global__ void __launch_bounds__(flash_threads) flash_forward_kernel(AttentionArguments<T> a) {
  constexpr int keys = forward_keys_of<D>;
  auto& s = shared_memory<FlashForwardStorage<D, T>>();
  const int head = int(blockIdx.y), tiles = *a.list.count;
  const int64_t q_col = int64_t(head) * a.head_dim, kv_col = int64_t(a.kv_head(head)) * a.head_dim;

  for (int t = int(blockIdx.x); t < tiles; t += int(gridDim.x)) {
    const Tile tile = a.list.tiles[a.visibility.causal ? tiles - 1 - t : t];
    const Segment segment = a.segments[tile.segment];
    const int q0 = tile.first, q_end = std::min(segment.q_len, q0 + flash_queries);
    const int k_begin = a.visibility.first(segment, q0) / keys * keys;
    const int k_end = a.visibility.end(segment, q_end - 1);
    const auto fetch = [&](T* to, const Rows<const T>& from, int k0) {
      if (k0 < k_end)
        copy_tile<D>(to, from, int64_t(segment.k_start) + k0, kv_col, keys, segment.k_len - k0, a.head_dim);
      copy_async_commit();
    };
    const auto pair_of = [&](int m, int k0) {
      const int begin = q0 + m * flash_rows;
      return Pair{segment, begin, std::min(q_end, begin + flash_rows), k0, flash_rows, keys};
    };
    __syncthreads();  // the last tile's queries, keys and values have been read
    copy_tile<D>(s.q, a.q, int64_t(segment.q_start) + q0, q_col, flash_queries, q_end - q0, a.head_dim);
    fetch(s.k, a.k, k_begin);

    FlashRows<D> rows[2];
    for (int k0 = k_begin; k0 < k_end; k0 += keys) {
      copy_async_wait<0>();
      __syncthreads();  // the keys are there, and all warps are done with the values before
      fetch(s.v, a.v, k0);
      const auto between = [&] {
        copy_async_wait<0>();
        __syncthreads();
        fetch(s.k, a.k, k0 + keys);
      };
      const auto pair = [&](int m) { return pair_of(m, k0); };
      const bool first = pair(0).any_seen(a.visibility), second = pair(1).any_seen(a.visibility);
      if (first && second)
        forward_step<0, 2, dropout>(a, s, rows, head, pair, between);
      else if (second)
        forward_step<1, 1, dropout>(a, s, rows, head, pair, between);
      else
        forward_step<0, 1, dropout>(a, s, rows, head, pair, between);
    }
    copy_async_wait<0>();
#pragma unroll
    for (int m = 0; m < 2; ++m) store_rows(a, rows[m], pair_of(m, 0), head);
  }
}

}  // namespace mixtape::cuda
