#include "train/objective/objective.h"

namespace mixtape {

void Objective::fill(std::span<const uint64_t> samples, Batch& batch) const {
  const RowShape row = shape();
  batch.rows = int32_t(samples.size());
  batch.row_length = row.length;
  batch.decoder.row_length = row.decoder_length;
  batch.n_tokens = batch.n_targets = 0;
  Batch::Decoder& decoder = batch.decoder;
  for (auto* array : {&batch.tokens, &batch.positions, &batch.token_types, &batch.targets, &batch.source_ids,
                      &decoder.tokens, &decoder.positions})
    array->clear();
  for (auto* segments : {&batch.segments, &decoder.segments, &decoder.cross_segments}) segments->clear();
  batch.sample_ids.assign(samples.begin(), samples.end());
  for (const uint64_t index : samples) batch.source_ids.push_back(append_row_of(index, batch));
}

int TextObjective::append_row_of(uint64_t index, Batch& batch) const {
  Sample sample;
  data_->sample(index, sample);
  append(sample, batch);
  return sample.source;
}

}  // namespace mixtape
