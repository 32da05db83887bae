// Forward on Hopper. FLOPs: 4 D a pair of a visible tile, by wgmma. Bytes: k and v cross from the L2 cache once for
// each 128 queries of a head; q, out once.
//
// Source: FlashAttention-3 (arXiv 2407.08608). A consumer multiplies the scores of a tile of keys while the weights of
// the tile before are multiplied with its values, and does the softmax meanwhile.
#pragma once

#include "cuda/attention/hopper.h"
#include "cuda/device/stmatrix.h"

namespace mixtape::cuda {

constexpr int forward_keys = 128;  // at a time

template <class T>
struct HopperForward {
  TensorMap q, k, v;
  AttentionArguments<T> a;
};

template <int D, class T>
struct HopperForwardStorage {
  static constexpr int slots = D <= 64 ? 8 : 4;
  using Keys = HopperTile<D, forward_keys, T>;
  HopperTile<D, hopper_rows, T> q, out;
  Keys tiles[slots];  // keys and values in turns
  Ring<slots> ring;
  Mbarrier q_full, q_empty, tail;
  Mbarrier turn[2];  // of each consumer to start products

  __device__ Keys& tile(unsigned n) { return tiles[ring.slot(n)]; }
  __device__ void init_all() {
    ring.init_all();
    init(q_full, 1);
    init(q_empty, consumer_warps);
    init(tail, 1);
    for (Mbarrier& barrier : turn) init(barrier, consumer_warps / 2);
  }
};

template <int D, class T>
__device__ inline void forward_producer(const HopperForward<T>& h, HopperForwardStorage<D, T>& s) {
  TailLoader tail{s.tail};
  unsigned items = 0, n = 0;
  each_item(h.a, h.a.n_heads, h.a.visibility.causal, [&](const HopperItem& item) {
    const Segment& segment = item.segment;
    const int kv_head = h.a.kv_head(item.head);
    wait_together(s.q_empty, items++ % 2 ^ 1);
    if (lane_id() == 0) load_tile(s.q, h.q, item.head, segment.q_start + item.first, s.q_full);
    const KeyRange keys = keys_of(h.a, item, forward_keys);
    for (int j = 0; j < keys.steps; ++j) {
      const int k0 = keys.begin + j * forward_keys, row = segment.k_start + k0;
      s.ring.wait_until_empty(n);
      if (lane_id() == 0) load_tile(s.tile(n), h.k, kv_head, row, s.ring.filled(n));
      ++n;
      s.ring.wait_until_empty(n);
      tail.load(s.tile(n), h.v, kv_head, row, segment.k_len - k0, s.ring.filled(n));
      ++n;
    }
  });
}

// Out and lse of a warp's 16 rows. Sums become rows in shared memory, then whole 16-byte pieces.
template <int D, class T>
__device__ inline void store_out(const AttentionArguments<T>& a, HopperForwardStorage<D, T>& s, float (&o)[D / 8][4],
                                 const Softmax& softmax, const HopperItem& item) {
  const int q_end = std::min(item.segment.q_len, item.first + hopper_rows);
  const int64_t first_row = int64_t(item.segment.q_start) + item.first;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float sum = sum_of_row(softmax.sum[half]), inverse = sum > 0 ? 1.f / sum : 0.f;
#pragma unroll
    for (int d = 0; d < D / 8; ++d) o[d][2 * half] *= inverse, o[d][2 * half + 1] *= inverse;
    const int row = row_in_tile(2 * half);
    if (lane_id() % 4 == 0 && a.lse && item.first + row < q_end)
      a.lse[item.head * a.rows_q + first_row + row] = sum > 0 ? (softmax.most[half] + log2f(sum)) * ln_2 : -INFINITY;
  }
  uint32_t packed[D / 16][4];
  pack_operand<T>(packed, o);
  T* mine = s.out.v + warp_id() * 16 * D;
  __syncwarp();  // the rows of the item before have been read
#pragma unroll
  for (int d = 0; d < D; d += 16) stmatrix<false>(mine + at<D>(lane_id() % 16, d + lane_id() / 16 * 8), packed[d / 16]);
  __syncwarp();
  for (int i = lane_id(); i < 16 * D / 8; i += warp_size) {
    const int row = i / (D / 8), col = i % (D / 8) * 8, in_tile = warp_id() * 16 + row;
    if (item.first + in_tile < q_end && col < a.head_dim)
      *reinterpret_cast<Vec<T, 8>*>(a.out[first_row + in_tile] + int64_t(item.head) * a.head_dim + col) =
          *reinterpret_cast<const Vec<T, 8>*>(mine + at<D>(row, col));
  }
}

template <bool dropout, int D, class T>
__device__ inline void forward_consumer(const HopperForward<T>& h, HopperForwardStorage<D, T>& s) {
  constexpr int keys = forward_keys;
  const AttentionArguments<T>& a = h.a;
  const int me = warpgroup_id(), row = me * 64;
  unsigned items = 0, n = 0, turns = 0;  // n: of the next tile of keys; its values are n + 1
  // Consumers start their products in turns: what one has started keeps the tensor cores busy during the softmax of the
  // other. The first has the first turn.
  const auto take_turn = [&] { wait(s.turn[me], turns++ % 2 ^ (me == 0 ? 1u : 0u)); };
  const auto pass_turn = [&] { arrive_together(s.turn[1 - me]); };
  each_item(a, a.n_heads, a.visibility.causal, [&](const HopperItem& item) {
    const KeyRange range = keys_of(a, item, keys);
    const int q_end = std::min(item.segment.q_len, item.first + hopper_rows);
    float x[keys / 8][4], o[D / 8][4] = {}, shrink[2];
    uint32_t p[keys / 16][4];
    Softmax softmax;
    // Scores of step j into weights; p is theirs afterwards, when the products with the last ones are done.
    const auto weigh = [&](const Pair& pair) {
      const float scale = finish_scores(a, x, pair, item.head);
      softmax.add(x, scale, shrink);
      if constexpr (dropout) drop(a, x, pair, item.head);
    };
    const auto pair_of = [&](int j) {
      return Pair{item.segment, item.first, q_end, range.begin + j * keys, hopper_rows, keys};
    };

    wait(s.q_full, items++ % 2);
    if (range.steps > 0) {
      s.ring.wait_until_full(n);
      take_turn();
      wgmma_fence(x);
      start_scores<D, keys>(x, s.q, row, s.tile(n));
      pass_turn();
      wgmma_wait<0>(x);
      s.ring.leave(n);
      weigh(pair_of(0));
      pack_operand<T>(p, x);
    }
    for (int j = 1; j < range.steps; ++j) {
      s.ring.wait_until_full(n + 2);
      s.ring.wait_until_full(n + 1);
      take_turn();
      wgmma_fence(x, o, p);
      start_scores<D, keys>(x, s.q, row, s.tile(n + 2));
      start_sum<D, keys>(o, p, s.tile(n + 1));
      pass_turn();
      wgmma_wait<1>(x);
      s.ring.leave(n + 2);
      weigh(pair_of(j));
      wgmma_wait<0>(o, p);
      s.ring.leave(n + 1);
#pragma unroll
      for (int d = 0; d < D / 8; ++d)
        for (int r = 0; r < 4; ++r) o[d][r] *= shrink[r / 2];
      pack_operand<T>(p, x);
      n += 2;
    }
    arrive_together(s.q_empty);
    if (range.steps > 0) {
      s.ring.wait_until_full(n + 1);
      wgmma_fence(o, p);
      start_sum<D, keys>(o, p, s.tile(n + 1));
      wgmma_wait<0>(o, p);
      s.ring.leave(n + 1);
      n += 2;
    }
    store_out(a, s, o, softmax, item);
  });
}

template <int D, bool dropout, class T>
__global__ void __launch_bounds__(hopper_threads, 1) hopper_forward_kernel(const __grid_constant__ HopperForward<T> h) {
  if constexpr (has_warpgroups) {
    auto& s = shared_memory<HopperForwardStorage<D, T>>();
    by_roles(
        s, [&] { forward_consumer<dropout>(h, s); }, [&] { forward_producer(h, s); });
  }
}

}  // namespace mixtape::cuda
