// Fine-tuning: rows of whole examples, each a segment of its own, so that nothing is computed for padding but what is
// left at the end of a row.
//
// A task (classify.h, tag.h, seq2seq.h, instruct.h) says how a line of data becomes an example; the rest is the same
// for all of them. After an encoder an example's targets are what the decoder writes: it reads `start` and then the
// targets but the last.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "train/data/example_rows.h"
#include "train/data/mixture.h"
#include "train/objective/objective.h"

namespace mixtape {

class Task {
 public:
  virtual ~Task() = default;
  // Thread-safe. Throws DataError for a record that does not fit.
  virtual Example encode(const Record& record) const = 0;
  virtual std::unique_ptr<Scorer> scorer() const = 0;
};

class FineTuning final : public Objective {
 public:
  struct Source {
    std::string name;
    double weight = 1;
    std::unique_ptr<const ExampleRows> rows;
  };
  struct Ids {
    int32_t pad = 0;
    int32_t start = 0;  // of the decoder
  };
  FineTuning(std::unique_ptr<const Task> task, std::vector<Source> sources, RowShape shape, Ids ids);

  RowShape shape() const override { return shape_; }
  std::optional<uint64_t> size() const override { return mixture_->size(); }
  std::vector<SourceStatistics> statistics() const override;
  std::vector<uint64_t> counts(uint64_t samples) const override { return mixture_->counts(samples); }
  std::unique_ptr<Scorer> scorer() const override { return task_->scorer(); }

 private:
  int append_row_of(uint64_t sample, Batch& batch) const override;

  std::unique_ptr<const Task> task_;
  std::vector<Source> sources_;
  RowShape shape_;
  Ids ids_;
  std::unique_ptr<Mixture> mixture_;
};

}  // namespace mixtape
