// Attention on Hopper (sm_90a): what its kernels share, and their launchers. The kernels are in hopper_forward.h and
// hopper_backward.h; docs/kernels/attention.md tells why they are as they are.
//
// A block has three warpgroups and stays on its multiprocessor. One warp of the last warpgroup, the producer, brings
// tiles by TMA into a ring of slots; two warpgroups, the consumers, own 64 rows each and multiply by wgmma. An mbarrier
// a slot says that it is full, another that the consumers' eight warps have left it. Blocks take pairs of a tile and a
// head in turns, and the producer is ahead of the consumers across their ends.
#pragma once

#include "cuda/attention/scores.h"
#include "cuda/device/setmaxnreg.h"
#include "cuda/device/tma.h"
#include "cuda/device/wgmma.h"

namespace mixtape::cuda {

constexpr int hopper_rows = 128, hopper_threads = 3 * warpgroup_size;
constexpr int consumer_warps = 2 * warpgroup_size / warp_size;
constexpr int box_rows = 64;  // that one copy brings
// Registers of a thread: 168 at the launch, of which the producer needs few. 128 x 24 + 256 x 240 <= 65536.
constexpr int producer_registers = 24, consumer_registers = 240;

// `rows` rows of a head: panes of 64 columns, [rows][64], as wgmma reads them.
template <int D, int rows, class T>
struct alignas(1024) HopperTile {
  T v[rows * D];
  static constexpr int pane_bytes = rows * box_cols * int(sizeof(T));
  // Bytes from the tile's begin to column `col` of a pane's first row.
  __device__ static int offset(int col) { return col / box_cols * pane_bytes + col % box_cols * int(sizeof(T)); }
};

// By a whole warp, of which one lane goes on to do what ends the next phases: it must not leave behind lanes that have
// not seen this one end.
__device__ inline void wait_together(Mbarrier& b, unsigned parity) {
  wait(b, parity);
  __syncwarp();
}
// One arrival for a whole warp, after what all of its lanes did.
__device__ inline void arrive_together(Mbarrier& b) {
  __syncwarp();
  if (lane_id() == 0) arrive(b);
}

// Of the n-th tile that passes through.
template <int slots>
struct Ring {
  Mbarrier full[slots], empty[slots];

  __device__ static unsigned slot(unsigned n) { return n % slots; }
  __device__ static unsigned parity(unsigned n) { return n / slots % 2; }
  __device__ void init_all() {
    for (int i = 0; i < slots; ++i) {
      init(full[i], 1);
      init(empty[i], consumer_warps);
    }
  }
  __device__ Mbarrier& filled(unsigned n) { return full[slot(n)]; }
  __device__ void wait_until_empty(unsigned n) { wait_together(empty[slot(n)], parity(n) ^ 1); }
  __device__ void wait_until_full(unsigned n) { wait(full[slot(n)], parity(n)); }
  // By a whole warp, which is done with the slot.
  __device__ void leave(unsigned n) { arrive_together(empty[slot(n)]); }
};

// A block's roles, once its barriers are initialised: consumers take the registers that the producer's warpgroup gives
// up, of which one warp works.
template <class Storage, class Consume, class Produce>
__device__ inline void by_roles(Storage& s, Consume&& consume, Produce&& produce) {
  if (threadIdx.x == 0) {
    s.init_all();
    fence_of_init();
  }
  __syncthreads();
  if (warp_id() < consumer_warps) {
    take_registers_up_to<consumer_registers>();
    consume();
  } else {
    give_registers_down_to<producer_registers>();
    if (warp_id() == consumer_warps) produce();
  }
}

// Starts to bring rows of a head, by one thread.
template <int D, int rows, class T>
__device__ inline void load_tile(HopperTile<D, rows, T>& to, const TensorMap& map, int head, int row, Mbarrier& full) {
  arrive_expecting(full, int(sizeof(to.v)));
  for (int col = 0; col < D; col += box_cols)
    for (int r = 0; r < rows; r += box_rows) copy_box(to.v + col * rows + r * box_cols, map, col, head, row + r, full);
}

// The same by a whole warp, where rows from `valid` on become zeros: they are of other documents, and what lies there,
// NaN perhaps, must not meet a weight of 0. TMA itself puts zeros behind the end of the tensor alone, so the warp waits
// for the tile on a barrier of its own and overwrites them.
struct TailLoader {
  Mbarrier& arrived;
  unsigned parity = 0;

  template <int D, int rows, class T>
  __device__ void load(HopperTile<D, rows, T>& to, const TensorMap& map, int head, int row, int valid, Mbarrier& full) {
    if (valid >= rows) {
      if (lane_id() == 0) load_tile(to, map, head, row, full);
      return;
    }
    if (lane_id() == 0) load_tile(to, map, head, row, arrived);
    wait(arrived, parity);
    parity ^= 1;
    struct alignas(16) Piece {
      uint32_t zeros[4];
    };
    for (int col = 0; col < D; col += box_cols) {
      Piece* piece = reinterpret_cast<Piece*>(to.v + col * rows + valid * box_cols);
      for (int i = lane_id(); i < (rows - valid) * box_cols / 8; i += warp_size) piece[i] = {};
    }
    fence_for_async();
    arrive_together(full);
  }
};

// s[64 x N] = a b^T: 64 rows of a from `row`, all of b. Both start a group of products.
template <int D, int N, int rows, class T>
__device__ inline void start_scores(float (&s)[N / 8][4], HopperTile<D, rows, T>& a, int row, HopperTile<D, N, T>& b) {
  const SharedMatrix left = shared_matrix<false>(a.v + row * box_cols, 0), right = shared_matrix<false>(b.v, 0);
#pragma unroll
  for (int k = 0; k < D; k += 16) wgmma<T, false>(s, moved(left, a.offset(k)), moved(right, b.offset(k)), k > 0);
  wgmma_commit();
}
// acc[64 x D] += p x.
template <int D, int N, class T>
__device__ inline void start_sum(float (&acc)[D / 8][4], const uint32_t (&p)[N / 16][4], HopperTile<D, N, T>& x) {
  const SharedMatrix right = shared_matrix<true>(x.v, x.pane_bytes);
#pragma unroll
  for (int n = 0; n < N; n += 16) wgmma<T, true>(acc, p[n / 16], moved(right, n * box_cols * int(sizeof(T))), true);
  wgmma_commit();
}

// Sums as operands of the next product.
template <class T, int N>
__device__ inline void pack_operand(uint32_t (&p)[N][4], const float (&x)[2 * N][4]) {
#pragma unroll
  for (int n = 0; n < N; ++n) {
    const float(&low)[4] = x[2 * n], (&high)[4] = x[2 * n + 1];
    p[n][0] = pack<T>(low[0], low[1]), p[n][1] = pack<T>(low[2], low[3]);
    p[n][2] = pack<T>(high[0], high[1]), p[n][3] = pack<T>(high[2], high[3]);
  }
}

// What a block does at a time: a tile of 128 rows and a head.
struct HopperItem {
  Segment segment;
  int head, first;
};
// body(item) for each of this block's. `last_first`: the list's end is where causal queries have most keys.
template <class T, class Body>
__device__ inline void each_item(const AttentionArguments<T>& a, int heads, bool last_first, Body&& body) {
  const int tiles = *a.list.count;
  for (int64_t i = blockIdx.x; i < int64_t(tiles) * heads; i += gridDim.x) {
    const int t = int(i / heads);
    const Tile tile = a.list.tiles[last_first ? tiles - 1 - t : t];
    body(HopperItem{a.segments[tile.segment], int(i % heads), tile.first});
  }
}

// The keys that a tile of queries sees, from a whole tile of keys on.
struct KeyRange {
  int begin, steps;
};
template <class T>
__device__ inline KeyRange keys_of(const AttentionArguments<T>& a, const HopperItem& item, int keys) {
  const int last = std::min(item.segment.q_len, item.first + hopper_rows) - 1;
  const int begin = a.visibility.first(item.segment, item.first) / keys * keys;
  const int end = a.visibility.end(item.segment, last);
  return {begin, end > begin ? (end - begin + keys - 1) / keys : 0};
}

// The launchers, for fp16 and bf16. A list of tiles of hopper_rows is in the arguments.
template <class T>
void launch_hopper_forward(Runtime& runtime, const AttentionArguments<T>& a, const Attention& tensors);
template <class T>
void launch_hopper_dq(Runtime& runtime, const AttentionBackwardArguments<T>& a, const AttentionBackward& tensors);
template <class T>
void launch_hopper_dkv(Runtime& runtime, const AttentionBackwardArguments<T>& a, const AttentionBackward& tensors);

}  // namespace mixtape::cuda
