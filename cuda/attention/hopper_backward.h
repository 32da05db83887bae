// Backward on Hopper: the two kernels of flash.h, in which every gradient has one owner, with tiles by TMA and products
// by wgmma. FLOPs: 14 D a pair of a visible tile, 6 D for dQ and 8 D for dK, dV. Bytes: the passing side crosses from
// the L2 cache once for each 128 rows of the other; q, k, v, dout and the gradients once.
//
// A consumer owns 64 rows and walks the other side 64 rows at a time: more would not fit its registers beside the sums
// of dK and dV. While it turns scores into weights, dout . v is on its way; the rest of the time the other consumer's
// products fill the tensor cores.
#pragma once

#include "cuda/attention/hopper.h"

namespace mixtape::cuda {

constexpr int backward_step = 64;

template <class T>
struct HopperBackward {
  TensorMap q, k, v, dout;
  AttentionBackwardArguments<T> a;
};

// `own`: queries and their dout for dQ; keys and values for dK, dV. The other two pass, in turns, as tiles.
template <int D, class T>
struct HopperBackwardStorage {
  static constexpr int slots = 6;
  using Passing = HopperTile<D, backward_step, T>;
  HopperTile<D, hopper_rows, T> own[2];
  Passing tiles[slots];
  float lse[slots / 2][backward_step], delta[slots / 2][backward_step];  // of passing queries, lse in base 2
  Ring<slots> ring;
  Mbarrier own_full, own_empty, tail;

  __device__ Passing& tile(unsigned n) { return tiles[ring.slot(n)]; }
  __device__ void init_all() {
    ring.init_all();
    init(own_full, 2);
    init(own_empty, consumer_warps);
    init(tail, 1);
  }
};

// Scores of a warp's 16 rows into weights. Where dropout drops one its sign is negative. `transposed`: rows are keys.
// lse(n, r) is that of an element's query, in base 2.
template <bool transposed, bool dropout, class T, int N, class Lse>
__device__ inline void weights_of(const AttentionBackwardArguments<T>& a, float (&x)[N][4], const Pair& pair, int head,
                                  Lse&& lse) {
  const float scale = a.scale * log2_e;
  const bool edge = pair.at_edge(a.visibility), biased = a.has_bias();
#pragma unroll
  for (int n = 0; n < N; ++n)
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      const int row = row_in_tile(r), col = col_in_tile(n, r);
      const int i = pair.q0 + (transposed ? col : row), j = pair.k0 + (transposed ? row : col);
      float exponent = fmaf(x[n][r], scale, -lse(n, r));
      if (biased) exponent += a.bias.of(head, pair.distance(i, j)) * log2_e;
      x[n][r] = edge && !pair.sees(a.visibility, i, j) ? 0.f : exp2f(exponent);
    }
  if constexpr (dropout) mark_dropped<transposed>(a, x, pair, head);
}

// The gradients of scores, without the scale, from weights p and dp = dout . v, as an operand.
template <class T, int N, class Delta>
__device__ inline void pack_score_gradients(const AttentionBackwardArguments<T>& a, uint32_t (&ds)[N / 2][4],
                                            const float (&p)[N][4], float (&dp)[N][4], Delta&& delta) {
  const float kept = a.dropout.scale;
#pragma unroll
  for (int n = 0; n < N; ++n)
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      // A row or column without weight may hold anything in dp.
      const float weight = fabsf(p[n][r]), gradient = (p[n][r] < 0 ? 0.f : dp[n][r] * kept) - delta(n, r);
      dp[n][r] = weight > 0 ? weight * gradient : 0.f;
    }
  pack_operand<T>(ds, dp);
}

// The weights that dropout kept, as an operand.
template <class T, int N>
__device__ inline void pack_kept(const AttentionBackwardArguments<T>& a, uint32_t (&packed)[N / 2][4],
                                 const float (&p)[N][4]) {
  float kept[N][4];
#pragma unroll
  for (int n = 0; n < N; ++n)
#pragma unroll
    for (int r = 0; r < 4; ++r) kept[n][r] = fmaxf(p[n][r], 0.f) * a.dropout.scale;
  pack_operand<T>(packed, kept);
}

// dQ: a block's queries, and passing keys and values.
template <int D, class T>
__device__ inline void dq_producer(const HopperBackward<T>& h, HopperBackwardStorage<D, T>& s) {
  TailLoader tail{s.tail};
  unsigned items = 0, n = 0;
  each_item(h.a, h.a.n_heads, h.a.visibility.causal, [&](const HopperItem& item) {
    const Segment& segment = item.segment;
    const int kv_head = h.a.kv_head(item.head), q_row = segment.q_start + item.first;
    wait_together(s.own_empty, items++ % 2 ^ 1);
    if (lane_id() == 0) {
      load_tile(s.own[0], h.q, item.head, q_row, s.own_full);
      load_tile(s.own[1], h.dout, item.head, q_row, s.own_full);
    }
    const KeyRange keys = keys_of(h.a, item, backward_step);
    for (int j = 0; j < keys.steps; ++j, n += 2) {
      const int k0 = keys.begin + j * backward_step, row = segment.k_start + k0;
      s.ring.wait_until_empty(n);
      tail.load(s.tile(n), h.k, kv_head, row, segment.k_len - k0, s.ring.filled(n));
      s.ring.wait_until_empty(n + 1);
      if (lane_id() == 0) load_tile(s.tile(n + 1), h.v, kv_head, row, s.ring.filled(n + 1));
    }
  });
}

template <bool dropout, int D, class T>
__device__ inline void dq_consumer(const HopperBackward<T>& h, HopperBackwardStorage<D, T>& s) {
  constexpr int step = backward_step;
  const AttentionBackwardArguments<T>& a = h.a;
  const int own_row = warpgroup_id() * 64;
  unsigned items = 0, n = 0;
  each_item(a, a.n_heads, a.visibility.causal, [&](const HopperItem& item) {
    const KeyRange range = keys_of(a, item, step);
    const int q_end = std::min(item.segment.q_len, item.first + hopper_rows);
    const int64_t q_row = int64_t(item.segment.q_start) + item.first;
    float x[step / 8][4], dp[step / 8][4], dq[D / 8][4] = {}, lse[2] = {}, delta[2] = {};
    uint32_t ds[step / 16][4];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = row_in_tile(2 * half);
      if (item.first + row >= q_end) continue;
      lse[half] = a.lse[item.head * a.rows_q + q_row + row] * log2_e;
      delta[half] = a.delta[item.head * a.rows_q + q_row + row];
    }

    wait(s.own_full, items++ % 2);
    for (int j = 0; j < range.steps; ++j, n += 2) {
      const Pair pair{item.segment, item.first, q_end, range.begin + j * step, hopper_rows, step};
      s.ring.wait_until_full(n);
      s.ring.wait_until_full(n + 1);
      wgmma_fence(x, dp);
      start_scores<D, step>(x, s.own[0], own_row, s.tile(n));
      start_scores<D, step>(dp, s.own[1], own_row, s.tile(n + 1));
      wgmma_wait<1>(x, ds);  // and the sum of the step before, which began earlier
      if (j > 0) s.ring.leave(n - 2);
      weights_of<false, dropout>(a, x, pair, item.head, [&](int, int r) { return lse[r / 2]; });
      wgmma_wait<0>(dp);
      s.ring.leave(n + 1);
      pack_score_gradients(a, ds, x, dp, [&](int, int r) { return delta[r / 2]; });
      wgmma_fence(dq, ds);
      start_sum<D, step>(dq, ds, s.tile(n));
    }
    wgmma_wait<0>(dq, ds);
    if (range.steps > 0) s.ring.leave(n - 2);
    arrive_together(s.own_empty);
    store_gradient<D>(a.dq, dq, q_row, q_end - item.first, int64_t(item.head) * a.head_dim, a.head_dim, a.scale,
                      a.add_dq);
  });
}

// dK, dV: a block's keys and values, and passing queries of all heads that share them. Steps are (head, tile of
// queries); tiles of which no query sees a key of this block are passed over.
struct QuerySteps {
  int tiles, count, k0, k_end;
  template <class T>
  __device__ QuerySteps(const AttentionArguments<T>& a, const HopperItem& item)
      : tiles((item.segment.q_len + backward_step - 1) / backward_step),
        count(tiles * (a.n_heads / a.n_kv_heads)),
        k0(item.first),
        k_end(std::min(item.segment.k_len, item.first + hopper_rows)) {}

  __device__ int first_query(int step) const { return step % tiles * backward_step; }
  __device__ int next(const Visibility& v, const Segment& s, int step) const {
    for (; step < count; ++step) {
      const int q0 = first_query(step), last = std::min(s.q_len, q0 + backward_step) - 1;
      if (v.first(s, q0) < k_end && v.end(s, last) > k0) break;
    }
    return step;
  }
};

template <int D, class T>
__device__ inline void dkv_producer(const HopperBackward<T>& h, HopperBackwardStorage<D, T>& s) {
  const AttentionBackwardArguments<T>& a = h.a;
  TailLoader tail{s.tail};
  unsigned items = 0, n = 0;
  each_item(a, a.n_kv_heads, false, [&](const HopperItem& item) {
    const Segment& segment = item.segment;
    const int k_row = segment.k_start + item.first, first_head = item.head * (a.n_heads / a.n_kv_heads);
    wait_together(s.own_empty, items++ % 2 ^ 1);
    if (lane_id() == 0) {
      load_tile(s.own[0], h.k, item.head, k_row, s.own_full);
      load_tile(s.own[1], h.v, item.head, k_row, s.own_full);
    }
    const QuerySteps steps(a, item);
    for (int step = steps.next(a.visibility, segment, 0); step < steps.count;
         step = steps.next(a.visibility, segment, step + 1), n += 2) {
      const int q0 = steps.first_query(step), head = first_head + step / steps.tiles, valid = segment.q_len - q0;
      const int64_t row = int64_t(segment.q_start) + q0, stage = s.ring.slot(n) / 2;
      s.ring.wait_until_empty(n);
      for (int i = lane_id(); i < backward_step; i += warp_size) {
        s.lse[stage][i] = i < valid ? a.lse[head * a.rows_q + row + i] * log2_e : 0.f;
        s.delta[stage][i] = i < valid ? a.delta[head * a.rows_q + row + i] : 0.f;
      }
      __syncwarp();
      tail.load(s.tile(n), h.q, head, int(row), valid, s.ring.filled(n));
      s.ring.wait_until_empty(n + 1);
      tail.load(s.tile(n + 1), h.dout, head, int(row), valid, s.ring.filled(n + 1));
    }
  });
}

// The transposed scores K q^T, so that weights and their gradients are operands of dV and dK as they lie.
template <bool dropout, int D, class T>
__device__ inline void dkv_consumer(const HopperBackward<T>& h, HopperBackwardStorage<D, T>& s) {
  constexpr int step_rows = backward_step;
  const AttentionBackwardArguments<T>& a = h.a;
  const int own_row = warpgroup_id() * 64;
  unsigned items = 0, n = 0;
  each_item(a, a.n_kv_heads, false, [&](const HopperItem& item) {
    const Segment& segment = item.segment;
    const QuerySteps steps(a, item);
    const int first_head = item.head * (a.n_heads / a.n_kv_heads);
    float x[step_rows / 8][4], dp[step_rows / 8][4], dk[D / 8][4] = {}, dv[D / 8][4] = {};
    uint32_t p[step_rows / 16][4], ds[step_rows / 16][4];

    wait(s.own_full, items++ % 2);
    for (int step = steps.next(a.visibility, segment, 0); step < steps.count;
         step = steps.next(a.visibility, segment, step + 1), n += 2) {
      const int q0 = steps.first_query(step), head = first_head + step / steps.tiles;
      const Pair pair{segment, q0, std::min(segment.q_len, q0 + step_rows), item.first, step_rows, hopper_rows};
      const float *lse = s.lse[s.ring.slot(n) / 2], *delta = s.delta[s.ring.slot(n) / 2];
      s.ring.wait_until_full(n);
      s.ring.wait_until_full(n + 1);
      wgmma_fence(x, dp);
      start_scores<D, step_rows>(x, s.own[0], own_row, s.tile(n));
      start_scores<D, step_rows>(dp, s.own[1], own_row, s.tile(n + 1));
      wgmma_wait<1>(x);
      weights_of<true, dropout>(a, x, pair, head, [&](int i, int r) { return lse[col_in_tile(i, r)]; });
      wgmma_wait<0>(dp);
      pack_kept(a, p, x);
      pack_score_gradients(a, ds, x, dp, [&](int i, int r) { return delta[col_in_tile(i, r)]; });
      wgmma_fence(dv, dk, p, ds);
      start_sum<D, step_rows>(dv, p, s.tile(n + 1));
      start_sum<D, step_rows>(dk, ds, s.tile(n));
      wgmma_wait<0>(dv, dk, p, ds);  // before the next scores, for which there would be no registers
      s.ring.leave(n);
      s.ring.leave(n + 1);
    }
    arrive_together(s.own_empty);
    const int64_t k_row = int64_t(segment.k_start) + item.first, col = int64_t(item.head) * a.head_dim;
    const int valid = segment.k_len - item.first;
    store_gradient<D>(a.dk, dk, k_row, valid, col, a.head_dim, a.scale, a.add_dk);
    store_gradient<D>(a.dv, dv, k_row, valid, col, a.head_dim, 1.f, a.add_dv);
  });
}

template <int D, bool dropout, class T>
__global__ void __launch_bounds__(hopper_threads, 1) hopper_dq_kernel(const __grid_constant__ HopperBackward<T> h) {
  if constexpr (has_warpgroups) {
    auto& s = shared_memory<HopperBackwardStorage<D, T>>();
    by_roles(
        s, [&] { dq_consumer<dropout>(h, s); }, [&] { dq_producer(h, s); });
  }
}
template <int D, bool dropout, class T>
__global__ void __launch_bounds__(hopper_threads, 1) hopper_dkv_kernel(const __grid_constant__ HopperBackward<T> h) {
  if constexpr (has_warpgroups) {
    auto& s = shared_memory<HopperBackwardStorage<D, T>>();
    by_roles(
        s, [&] { dkv_consumer<dropout>(h, s); }, [&] { dkv_producer(h, s); });
  }
}

}  // namespace mixtape::cuda
