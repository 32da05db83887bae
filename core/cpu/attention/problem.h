// What the attention kernels of the CPU work on: which keys a query sees, and how the work is cut.
//
// Keys are cut into tiles counted from the start of their segment and a query visits them in ascending order, so a
// row's bits depend on its own segment alone: not on its neighbours in the batch, the threads, or the cut of the rows.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "core/cpu/families.h"

namespace mixtape::flash {

inline constexpr int64_t key_tile = 64;
inline constexpr int64_t forward_queries = 128;  // a task; the more, the less often keys are packed
inline constexpr int64_t backward_queries = 64;
inline constexpr int64_t widest_panel = 32;  // queries that are computed side by side: two vectors

constexpr int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// Scores that were computed, masked ones included; for tests of what is skipped. Null: not counted.
inline std::atomic<int64_t>* computed_scores = nullptr;

// The row of `segments`.
struct Segment {
  int32_t q_start, q_len, k_start, k_len;
};

// Query i (counted inside the segment) sees keys [first(i), end(i)); both grow with i.
struct Visible {
  int64_t q_len, k_len, window;
  bool causal;

  int64_t aligned(int64_t i) const { return i + k_len - q_len; }
  int64_t first(int64_t i) const { return window > 0 ? clamped(aligned(i) - window + 1) : 0; }
  int64_t end(int64_t i) const {
    if (causal) return clamped(aligned(i) + 1);
    return window > 0 ? clamped(aligned(i) + window) : k_len;
  }

 private:
  int64_t clamped(int64_t j) const { return std::clamp<int64_t>(j, 0, k_len); }
};

// A matrix of any of the three types.
struct Rows {
  std::byte* data = nullptr;
  int64_t stride = 0;  // in elements
  DType type = DType::f32;

  Rows() = default;
  explicit Rows(const Tensor& t) : data(t.raw()), stride(t.row_stride()), type(t.dtype()) {}
  std::byte* at(int64_t row, int64_t col) const { return data + (row * stride + col) * size_of(type); }
};

// T5's bias by distance i' - j, for panels of queries: `at(distance)` is where the values of the queries at `distance`,
// `distance` + 1, ... of a key begin. Beyond +-reach all values are the same, so it stops there.
struct RelativeBias {
  const float* values = nullptr;     // [n_heads, width], times log2(e); null: no such bias
  const int32_t* buckets = nullptr;  // [width]
  int64_t reach = 0;

  int64_t width() const { return 2 * (reach + widest_panel); }
  int64_t at(int64_t distance) const {
    return std::clamp(distance, -reach - widest_panel, reach) + reach + widest_panel;
  }
};

struct Problem {
  Rows q, k, v, out;
  float* lse = nullptr;  // [n_heads, rows_q]; null where no gradient is wanted
  int64_t rows_q = 0;
  const float* slopes = nullptr;
  RelativeBias relative;
  AttentionSpec spec;
  PhiloxKey philox;
  uint32_t site = 0;

  int64_t group() const { return spec.n_heads / spec.n_kv_heads; }
  // Columns of a packed row: whole vectors, whatever the instruction set.
  int64_t padded_dim() const { return round_up(spec.head_dim, widest_panel); }
  float keep_scale() const { return 1.f / (1.f - float(spec.dropout_threshold) / 256.f); }
  Visible visible(const Segment& s) const { return {s.q_len, s.k_len, spec.window, spec.causal}; }
};

// Queries [begin, end) of one head of one segment.
struct ForwardTask {
  Segment segment;
  int64_t head, begin, end;
};

// The one query of a segment, for the heads that share a key/value head.
struct DecodeTask {
  Segment segment;
  int64_t kv_head;
};

struct BackwardProblem : Problem {
  Rows dout, dq, dk, dv;
  Write write_dq = Write::none, write_dk = Write::none, write_dv = Write::none;
  float* relative_sums = nullptr;  // [tiles of queries, relative_buckets, n_heads]; null: no such gradient
};

// What queries [q_begin, q_end) of some heads and keys [k_begin, k_end) of their key/value head give each other. The
// gradients that the task does not own are left out; the owner of dQ has the sums of the relative bias, too.
struct BackwardTask {
  Segment segment;
  int64_t head, heads, q_begin, q_end, k_begin, k_end;
  bool owns_dq, owns_dkv;
  int64_t first_tile;  // of the segment, in relative_sums
};

// Floats of scratch that one thread needs.
int64_t forward_scratch(const AttentionSpec& spec);
int64_t backward_scratch(const AttentionSpec& spec, int64_t keys);

void forward(const Problem& problem, const ForwardTask& task, float* scratch);
void decode(const Problem& problem, const DecodeTask& task, float* scratch);
void backward(const BackwardProblem& problem, const BackwardTask& task, float* scratch);

}  // namespace mixtape::flash
