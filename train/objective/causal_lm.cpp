#include "train/objective/causal_lm.h"

#include <algorithm>

namespace mixtape {
void CausalLm::append_row(const Sample& sample, int32_t row_length, bool document_mask, int32_t pad, Batch& batch) {
  const size_t row = batch.tokens.size();
  const auto inputs = int32_t(sample.tokens.size()) - 1;
  batch.tokens.insert(batch.tokens.end(), sample.tokens.begin(), sample.tokens.end() - 1);
  batch.targets.insert(batch.targets.end(), sample.tokens.begin() + 1, sample.tokens.end());
  batch.n_tokens += inputs;
  batch.n_targets += inputs;

  int32_t start = int32_t(row);
  const auto close_up_to = [&](int32_t end) {  // an offset in the row
    const int32_t length = int32_t(row) + end - start;
    if (length == 0) return;
    batch.segments.push_back({.q_start = start, .q_len = length, .k_start = start, .k_len = length});
    for (int32_t i = 0; i < length; ++i) batch.positions.push_back(i);
    start += length;
  };
  if (document_mask) {
    for (const int32_t offset : sample.document_starts) {
      close_up_to(std::min(offset, inputs));
      batch.targets[row + size_t(offset) - 1] = -1;
      --batch.n_targets;
    }
  }
  close_up_to(inputs);
  batch.tokens.resize(row + size_t(row_length), pad);
  batch.targets.resize(row + size_t(row_length), -1);
  close_up_to(row_length);
  ++batch.rows;
}

void CausalLm::fill(std::span<const uint64_t> samples, Batch& batch) const {
  batch.rows = 0;
  batch.row_length = data_.seq_length();
  batch.n_tokens = batch.n_targets = 0;
  batch.tokens.clear();
  batch.targets.clear();
  batch.positions.clear();
  batch.segments.clear();
  batch.sample_ids.assign(samples.begin(), samples.end());
  batch.source_ids.clear();
  Sample sample;
  for (const uint64_t index : samples) {
    data_.sample(index, sample);
    append_row(sample, data_.seq_length(), document_mask_, data_.eos_id(), batch);
    batch.source_ids.push_back(sample.source);
  }
}

}  // namespace mixtape
