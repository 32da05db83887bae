// An objective turns samples into inputs and targets. It is a pure function of (seed, sample indices).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "train/data/dataset.h"
#include "train/objective/batch.h"
#include "train/objective/scorer.h"

namespace mixtape {

class Objective {
 public:
  virtual ~Objective() = default;

  // Of every batch that fill() makes.
  virtual RowShape shape() const = 0;
  // One row per sample; `batch` is overwritten, its memory reused. Thread-safe. Throws DataError.
  void fill(std::span<const uint64_t> samples, Batch& batch) const;

  // Number of samples, if the data ends.
  virtual std::optional<uint64_t> size() const = 0;
  virtual std::vector<SourceStatistics> statistics() const = 0;
  // Samples of each source among the first `samples`: realised shares.
  virtual std::vector<uint64_t> counts(uint64_t samples) const = 0;

  // What besides the loss tells how good predictions are; null where nothing does.
  virtual std::unique_ptr<Scorer> scorer() const { return nullptr; }

 private:
  // Adds the row of a sample, exactly of shape(), to all arrays of `batch` that the objective uses, and to its counts.
  // Returns the sample's source.
  virtual int append_row_of(uint64_t sample, Batch& batch) const = 0;
};

// One whose samples are windows of streams of tokens.
class TextObjective : public Objective {
 public:
  const Dataset& data() const { return *data_; }
  std::optional<uint64_t> size() const override { return data_->size(); }
  std::vector<SourceStatistics> statistics() const override { return data_->statistics(); }
  std::vector<uint64_t> counts(uint64_t samples) const override { return data_->counts(samples); }

 protected:
  explicit TextObjective(std::unique_ptr<const Dataset> data) : data_(std::move(data)) {}

 private:
  int append_row_of(uint64_t sample, Batch& batch) const final;
  virtual void append(const Sample& sample, Batch& batch) const = 0;

  std::unique_ptr<const Dataset> data_;
};

}  // namespace mixtape
