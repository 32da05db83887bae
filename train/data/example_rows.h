// Examples as rows: as many of them in a row as fit, whole, in an order that is drawn anew every epoch.
//
// The order is a keyed permutation of the examples (train/data/shuffle.h), epoch after epoch, and a row takes the next
// ones until one does not fit: row k is a pure function of (seed, k). Where a row ends depends on all before it, so the
// beginnings of the rows seen so far are kept, 8 bytes each, and found again from the start when a run is resumed.
#pragma once

#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "train/data/dataset.h"
#include "train/data/example.h"

namespace mixtape {

// What a row has room for.
struct RowLimits {
  int32_t tokens = 0;
  int32_t targets = 0;  // of the arrays, those without one included; 0: one for each token
  int32_t examples = 0;
};

class ExampleRows {
 public:
  struct Options {
    std::string name;  // of the source; keys its order
    uint64_t seed = 0;
    std::optional<double> max_epochs = std::nullopt;
    Split split = Split::all;
    double validation_split = 0;
  };

  // Throws DataError if the split leaves no example, ConfigError if max_epochs does. Each example fits a row alone.
  ExampleRows(ExampleSet examples, const RowLimits& limits, Options options);

  // Rows until max_epochs; none if there is no limit.
  std::optional<uint64_t> limit() const { return limit_; }
  SourceStatistics statistics() const { return statistics_; }
  // The examples of a row, by their place in the set. Thread-safe.
  std::vector<uint32_t> row(uint64_t ordinal) const;
  ExampleView operator[](uint32_t example) const { return examples_[example]; }

 private:
  uint32_t example_at(uint64_t place) const;
  uint64_t end_of_row(uint64_t begin) const;
  uint64_t beginning(uint64_t ordinal) const;

  ExampleSet examples_;
  RowLimits limits_;
  Options options_;
  std::vector<uint32_t> members_;  // those of the split
  uint64_t end_ = UINT64_MAX;      // of the stream of examples
  std::optional<uint64_t> limit_;
  SourceStatistics statistics_;
  mutable std::mutex mutex_;
  mutable std::vector<uint64_t> beginnings_{0};  // of rows, as places in the stream
};

}  // namespace mixtape
