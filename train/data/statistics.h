// What is in a token source: figures for `mixtape data stats`.
#pragma once

#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "train/data/token_source.h"

namespace mixtape {

struct TokenStatistics {
  uint64_t documents = 0, empty_documents = 0, tokens = 0;  // end-of-sequence tokens are not counted
  uint64_t shortest = 0, longest = 0, median = 0;           // tokens of a document; the median to its power of two
  std::vector<uint64_t> lengths;                            // [k]: documents of 2^k to 2^(k+1) - 1 tokens
  std::vector<uint64_t> counts;                             // of each id in [0, vocab_size)
  uint64_t outside_vocabulary = 0;

  uint64_t distinct() const;
  // The n most frequent ids with their counts, most frequent first, ties to the lower id.
  std::vector<std::pair<int32_t, uint64_t>> most_frequent(size_t n) const;
};

// Reads everything once. `vocab_size` 0: counts grow to the largest id below 2^24. `progress` gets the documents done.
TokenStatistics measure(const TokenSource& source, int32_t vocab_size,
                        const std::function<void(uint64_t)>& progress = {});

}  // namespace mixtape
