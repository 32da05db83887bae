// What all objectives do to complete a row: padding, positions, segments of self-attention.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "train/objective/batch.h"

namespace mixtape {

// Tokens of one row: a range for each document where attention stays within documents, else one.
struct TokenRange {
  int32_t begin = 0, length = 0;
  int32_t end() const { return begin + length; }
  bool operator==(const TokenRange&) const = default;
};

// The documents of `length` tokens; `starts` are the offsets > 0 where further ones begin, ascending. Starts at or
// beyond `length` are left out.
std::vector<TokenRange> documents_of_row(std::span<const int32_t> starts, int32_t length);

// A row of `row_length` tokens of which `documents` are real: appends a segment and positions from 0 for each of them,
// and for the padding. The row's first token is number positions.size() of the batch.
void append_segments(std::span<const TokenRange> documents, int32_t row_length, std::vector<int32_t>& positions,
                     std::vector<Segment>& segments);

// Appends `tokens` and as many `padding` as fill a row.
void append_padded(std::span<const int32_t> tokens, int32_t row_length, int32_t padding, std::vector<int32_t>& out);

}  // namespace mixtape
