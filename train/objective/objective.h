// An objective turns samples into inputs and targets. It is a pure function of (seed, sample indices).
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "train/objective/batch.h"

namespace mixtape {

class Objective {
 public:
  virtual ~Objective() = default;

  // Of every batch that fill() makes.
  virtual RowShape shape() const = 0;
  // Number of samples, if the data ends.
  virtual std::optional<uint64_t> size() const = 0;
  // One row per sample; `batch` is overwritten, its memory reused. Thread-safe. Throws DataError.
  virtual void fill(std::span<const uint64_t> samples, Batch& batch) const = 0;
};

}  // namespace mixtape
