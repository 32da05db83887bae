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

// A row's capacities: what a model needs to know before there is any data.
struct RowShape {
  int32_t length = 0;          // tokens
  int32_t decoder_length = 0;  // tokens of the decoder's row; 0 where there is one stack
  int32_t most_targets = 0;    // no row has more
};

struct Batch {
  int32_t rows = 0, row_length = 0;
  std::vector<int32_t> tokens;       // of the only stack, or of the encoder
  std::vector<int32_t> positions;    // from 0 in each row, or in each document
  std::vector<int32_t> token_types;  // [B * T], or empty: all 0
  std::vector<Segment> segments;     // of self-attention; at most B * T, in order; never crossing a row

  // What the decoder of an encoder-decoder reads, [B * decoder.row_length], row after row. Without one it is empty.
  struct Decoder {
    int32_t row_length = 0;
    std::vector<int32_t> tokens, positions;
    std::vector<Segment> segments;  // of self-attention, as those above
    // Of cross-attention: queries are the decoder's tokens, keys the encoder's. No key and no query lies in two of
    // them, padding in none.
    std::vector<Segment> cross_segments;
  } decoder;

  // One for each token of the stack that predicts: the decoder where there is one. -1 where there is none.
  std::vector<int32_t> targets;

  int64_t n_tokens = 0;   // inputs that are not padding; of two stacks the encoder's, as papers count
  int64_t n_targets = 0;  // targets that are not -1

  std::vector<uint64_t> sample_ids;  // [B], indices into the dataset
  std::vector<int32_t> source_ids;   // [B]
};

// What a global step needs of this rank: its micro-batches in order, and their targets counted before the first
// forward.
struct GlobalBatch {
  uint64_t first_sample = 0;       // of the whole global step
  uint64_t first_micro_batch = 0;  // index of micro_batches[0] within the global step
  int64_t stride = 1;              // from one of them to the next
  int64_t of_micro_batches = 0;    // in the whole global step; 0: those here are all
  std::vector<Batch> micro_batches;
  int64_t n_tokens = 0;  // sums over micro_batches
  int64_t n_targets = 0;
};

}  // namespace mixtape
