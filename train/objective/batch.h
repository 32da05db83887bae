// One micro-batch on the host, as every objective makes it and every device takes it.
//
//   B rows, T row_length; all token arrays are [B * T], row after row.
#pragma once

#include <cstdint>
#include <vector>

namespace mixtape {

// Queries [q_start, q_start + q_len) attend to keys [k_start, k_start + k_len), indices into the flattened tokens. Each
// token lies in the q range of exactly one segment, padding too, so attention leaves no row undefined.
struct Segment {
  int32_t q_start = 0, q_len = 0, k_start = 0, k_len = 0;
  bool operator==(const Segment&) const = default;
};
static_assert(sizeof(Segment) == 4 * sizeof(int32_t), "segments are copied to devices as int32 [n][4]");

struct Batch {
  int32_t rows = 0, row_length = 0;
  std::vector<int32_t> tokens;     // inputs
  std::vector<int32_t> targets;    // -1 where there is none
  std::vector<int32_t> positions;  // from 0 in each row, or in each document
  std::vector<Segment> segments;   // at most B * T, in order; never crossing a row

  int64_t n_tokens = 0;   // inputs that are not padding
  int64_t n_targets = 0;  // targets that are not -1

  std::vector<uint64_t> sample_ids;  // [B], indices into the dataset
  std::vector<int32_t> source_ids;   // [B]
};

// What a global step needs of this rank: its micro-batches in order, and their targets counted before the first
// forward.
struct GlobalBatch {
  uint64_t first_sample = 0;       // of the whole global step
  uint64_t first_micro_batch = 0;  // index of micro_batches[0] within the global step
  std::vector<Batch> micro_batches;
  int64_t n_tokens = 0;  // sums over micro_batches
  int64_t n_targets = 0;
};

}  // namespace mixtape
