// An objective turns samples into inputs and targets. It is a pure function of (seed, sample indices).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "train/data/dataset.h"
#include "train/objective/batch.h"

namespace mixtape {

class Objective {
 public:
  virtual ~Objective() = default;

  // Of every batch that fill() makes.
  virtual RowShape shape() const = 0;
  // One row per sample; `batch` is overwritten, its memory reused. Thread-safe. Throws DataError.
  void fill(std::span<const uint64_t> samples, Batch& batch) const;

  const Dataset& data() const { return *data_; }
  // Number of samples, if the data ends.
  std::optional<uint64_t> size() const { return data_->size(); }

 protected:
  explicit Objective(std::unique_ptr<const Dataset> data) : data_(std::move(data)) {}

 private:
  // Adds a row of exactly shape() to all arrays of `batch` that the objective uses, and to its counts.
  virtual void append(const Sample& sample, Batch& batch) const = 0;

  std::unique_ptr<const Dataset> data_;
};

}  // namespace mixtape
