// What the attention kernels share: which keys a query sees, what is added to a score, what is dropped, and the list of
// tiles that the segments are cut into.
#pragma once

#include "core/base/philox.h"
#include "core/ops/attention.h"
#include "core/step_state.h"
#include "cuda/device/reduce.h"
#include "cuda/launch.h"

namespace mixtape::cuda {

// A row of `segments`.
struct Segment {
  int q_start, q_len, k_start, k_len;
};

// Query i (counted inside its segment) sees keys [first(i), end(i)); both grow with i, so what a tile of queries sees
// begins at its first query's first key and ends at its last one's end.
struct Visibility {
  int window;
  bool causal;

  __device__ static int clamped(int j, int k_len) { return j < 0 ? 0 : j > k_len ? k_len : j; }
  __device__ int first(const Segment& s, int i) const {
    return window > 0 ? clamped(i + s.k_len - s.q_len - window + 1, s.k_len) : 0;
  }
  __device__ int end(const Segment& s, int i) const {
    const int aligned = i + s.k_len - s.q_len;
    if (causal) return clamped(aligned + 1, s.k_len);
    return window > 0 ? clamped(aligned + window, s.k_len) : s.k_len;
  }
};

// The bias of ALiBi or of T5, by the distance j - i'.
template <class T>
struct Bias {
  const float* slopes;     // [n_heads], or null
  Rows<const T> table;     // [buckets, n_heads], or absent
  const int32_t* buckets;  // of the distances -reach .. reach
  int reach;

  __device__ int bucket(int distance) const {
    return buckets[(distance < -reach ? -reach : distance > reach ? reach : distance) + reach];
  }
  __device__ float of(int head, int distance) const {
    if (slopes) return slopes[head] * float(distance);
    return table ? to_float(table[bucket(distance)][head]) : 0.f;
  }
};

// The factor of an attention weight: 0, or 1 / (1 - p). The mapping is that of core/ops/attention.h.
struct AttentionDropout {
  int threshold, n_heads, first_head;  // of all that ranks share out
  uint32_t site;
  const StepState* state;
  float scale;

  __device__ bool drops(int head, int q_row, int k_row) const {
    const uint64_t index = uint64_t(int64_t(q_row / 16) * n_heads + first_head + head) << 32 |
                           uint64_t(uint32_t(k_row / 32 * 32 + 4 * (q_row % 8) + k_row % 8 / 2));
    const auto words = philox(state->philox, index, site, Purpose::attention_dropout);
    const int byte = 4 * (k_row % 32 / 8) + 2 * (q_row % 16 / 8) + k_row % 2;
    return int(words[byte / 4] >> (8 * (byte % 4)) & 255) < threshold;
  }
  __device__ float factor(int head, int q_row, int k_row) const {
    if (threshold == 0) return 1.f;
    return drops(head, q_row, k_row) ? 0.f : scale;
  }
};

// A tile of queries or of keys: `first` counts inside the segment.
struct Tile {
  int segment, first;
};
struct TileList {
  Tile* tiles;
  int* count;  // in device memory: it depends on the segments' contents
};

// What every kernel of attention is given.
template <class T>
struct AttentionArguments {
  Rows<const T> q, k, v;
  Rows<T> out;
  float* lse;  // [n_heads, rows_q], natural; or null
  const Segment* segments;
  TileList list;
  Visibility visibility;
  Bias<T> bias;
  AttentionDropout dropout;
  int n_heads, n_kv_heads, head_dim;
  int64_t rows_q;
  float scale;

  __device__ int kv_head(int head) const { return head / (n_heads / n_kv_heads); }
  __device__ bool has_bias() const { return bias.slopes || bias.table; }
};

template <class T>
struct AttentionBackwardArguments : AttentionArguments<T> {
  Rows<const T> dout;
  const float* delta;  // [n_heads, rows_q]: sum of dout * out
  Rows<T> dq, dk, dv;
  bool add_dq, add_dk, add_dv;
  float* relative_parts;  // tiled.h: [tiles, n_heads, buckets], or null
  int buckets;
};

constexpr int list_threads = 256;

// One block lists the tiles of all segments, in order. `keys` says whose lengths are meant.
template <int threads>  // a template, so that it may be in a header
__global__ void __launch_bounds__(threads)
    list_tiles_kernel(TileList list, const Segment* segments, const int* n_segments, int tile, bool keys) {
  struct Storage {
    int warps[warp_size];
  };
  Storage& s = shared_memory<Storage>();
  int before = 0;
  for (int base = 0; base < *n_segments; base += threads) {
    const int i = base + int(threadIdx.x);
    const int length = i < *n_segments ? (keys ? segments[i].k_len : segments[i].q_len) : 0;
    const int tiles = (length + tile - 1) / tile;
    int total;
    const int place = before + block_exclusive_sum(tiles, s.warps, total);
    for (int t = 0; t < tiles; ++t) list.tiles[place + t] = {i, t * tile};
    before += total;
  }
  if (threadIdx.x == 0) *list.count = before;
}

// The most tiles that `rows` in at most `segments` segments can give.
inline int64_t most_tiles(int64_t rows, int64_t segments, int64_t tile) { return divide_up(rows, tile) + segments; }

// The memory of a list of tiles.
class TileMemory {
 public:
  TileMemory(CudaBackend& backend, int64_t most)
      : most_(most), memory_(backend.workspace({2 * most + 1}, DType::i32)) {}
  TileList list(Runtime& runtime, const Tensor& segments, const Tensor& n_segments, int tile, bool keys) const {
    int32_t* data = memory_.data<int32_t>();
    const TileList list{reinterpret_cast<Tile*>(data), data + 2 * most_};
    launch(runtime, list_tiles_kernel<list_threads>, dim3(1), dim3(list_threads), warp_size * sizeof(int), list,
           reinterpret_cast<const Segment*>(segments.data<int32_t>()), n_segments.data<int32_t>(), tile, keys);
    return list;
  }
  // Blocks take tiles in turns, so that a capacity which is never used costs few of them.
  unsigned blocks() const { return unsigned(std::clamp<int64_t>(most_, 1, 2048)); }

 private:
  int64_t most_;
  Tensor memory_;
};

}  // namespace mixtape::cuda
