#include "train/objective/causal_lm.h"

#include "train/objective/row.h"

namespace mixtape {

void CausalLm::append_row(const Sample& sample, int32_t row_length, bool document_mask, int32_t eos, Batch& batch) {
  const std::span<const int32_t> tokens = sample.tokens;
  const size_t row = batch.tokens.size(), inputs = tokens.size() - 1;
  append_padded(tokens.first(inputs), row_length, eos, batch.tokens);
  append_padded(tokens.subspan(1), row_length, -1, batch.targets);
  batch.n_tokens += int64_t(inputs);
  batch.n_targets += int64_t(inputs);

  std::span<const int32_t> starts;
  if (document_mask) starts = sample.document_starts;
  for (const int32_t start : starts) {
    if (tokens[size_t(start)] == eos) continue;  // it also ends the document before
    batch.targets[row + size_t(start) - 1] = -1;
    --batch.n_targets;
  }
  append_segments(documents_of_row(starts, int32_t(inputs)), row_length, batch.positions, batch.segments);
}

}  // namespace mixtape
