// Next-token prediction: targets[t] = tokens[t + 1].
//
// The token that ends a document is predicted like any other, and so is the first token of the next document, from the
// end token that opens it (train/data/dataset.h, Framing::next_token): it is how a model learns to begin. With
// `document_mask`, attention stays within a document and positions count from its opening token. Where documents begin
// with a bos of their own, that bos is no target: it does not follow from the document before. Without the mask, a row
// is one segment and every position has a target. Padding has no target.
#pragma once

#include "train/objective/objective.h"

namespace mixtape {

class CausalLm final : public TextObjective {
 public:
  // `data`: Framing::next_token.
  CausalLm(std::unique_ptr<const Dataset> data, bool document_mask)
      : TextObjective(std::move(data)), document_mask_(document_mask) {}

  RowShape shape() const override { return {.length = data().seq_length(), .most_targets = data().seq_length()}; }

  // Appends one row to `batch`. `sample` has at most row_length + 1 tokens; the rest of the row is padded with `eos`.
  static void append_row(const Sample& sample, int32_t row_length, bool document_mask, int32_t eos, Batch& batch);

 private:
  void append(const Sample& sample, Batch& batch) const override {
    append_row(sample, data().seq_length(), document_mask_, data().eos_id(), batch);
  }

  bool document_mask_;
};

}  // namespace mixtape
