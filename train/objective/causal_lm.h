// Next-token prediction: targets[t] = tokens[t + 1].
//
// The end-of-sequence token is predicted like any other. What follows it is not, if `document_mask` is on: the first
// token of the next document is no consequence of this one, attention stays within a document, and positions count from
// its first token. Without it, a row is one segment and every position has a target. Padding has no target.
#pragma once

#include <memory>

#include "train/data/dataset.h"
#include "train/objective/objective.h"

namespace mixtape {

class CausalLm final : public Objective {
 public:
  // `data` must outlive the objective.
  CausalLm(const Dataset& data, bool document_mask) : data_(data), document_mask_(document_mask) {}

  RowShape shape() const override { return {.length = data_.seq_length(), .most_targets = data_.seq_length()}; }
  std::optional<uint64_t> size() const override { return data_.size(); }
  void fill(std::span<const uint64_t> samples, Batch& batch) const override;

  // Appends one row to `batch`. `sample` has at most row_length + 1 tokens; the rest of the row is padded with `pad`.
  static void append_row(const Sample& sample, int32_t row_length, bool document_mask, int32_t pad, Batch& batch);

 private:
  const Dataset& data_;
  bool document_mask_;
};

}  // namespace mixtape
