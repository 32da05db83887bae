#include "train/objective/fine_tuning.h"

#include <algorithm>

#include "train/objective/row.h"

namespace mixtape {

FineTuning::FineTuning(std::unique_ptr<const Task> task, std::vector<Source> sources, RowShape shape, Ids ids)
    : task_(std::move(task)), sources_(std::move(sources)), shape_(shape), ids_(ids) {
  std::vector<MixtureSource> shares;
  for (const Source& source : sources_) shares.push_back({source.name, source.weight, source.rows->limit()});
  mixture_ = std::make_unique<Mixture>(std::move(shares));
}

std::vector<SourceStatistics> FineTuning::statistics() const {
  std::vector<SourceStatistics> all;
  for (const Source& source : sources_) all.push_back(source.rows->statistics());
  return all;
}

int FineTuning::append_row_of(uint64_t sample, Batch& batch) const {
  const Mixture::Position position = mixture_->position(sample);
  const ExampleRows& rows = *sources_[size_t(position.source)].rows;
  const bool two_stacks = shape_.decoder_length > 0;
  std::vector<int32_t> tokens, types, targets, written;
  std::vector<TokenRange> read_ranges, written_ranges;
  for (const uint32_t number : rows.row(position.ordinal)) {
    const ExampleView example = rows[number];
    read_ranges.push_back({int32_t(tokens.size()), int32_t(example.tokens.size())});
    tokens.insert(tokens.end(), example.tokens.begin(), example.tokens.end());
    types.insert(types.end(), example.types.begin(), example.types.end());
    types.resize(tokens.size());
    written_ranges.push_back({int32_t(targets.size()), int32_t(example.targets.size())});
    targets.insert(targets.end(), example.targets.begin(), example.targets.end());
    if (!two_stacks) continue;
    written.push_back(ids_.start);
    written.insert(written.end(), example.targets.begin(), example.targets.end() - 1);
  }

  const auto row = int32_t(batch.tokens.size()), decoder_row = int32_t(batch.decoder.tokens.size());
  batch.n_tokens += int64_t(tokens.size());
  batch.n_targets += int64_t(targets.size()) - std::count(targets.begin(), targets.end(), -1);
  append_padded(tokens, shape_.length, ids_.pad, batch.tokens);
  append_padded(types, shape_.length, 0, batch.token_types);
  append_segments(read_ranges, shape_.length, batch.positions, batch.segments);
  append_padded(targets, two_stacks ? shape_.decoder_length : shape_.length, -1, batch.targets);
  if (two_stacks) {
    Batch::Decoder& decoder = batch.decoder;
    append_padded(written, shape_.decoder_length, ids_.pad, decoder.tokens);
    append_segments(written_ranges, shape_.decoder_length, decoder.positions, decoder.segments);
    for (size_t i = 0; i < read_ranges.size(); ++i)
      decoder.cross_segments.push_back({decoder_row + written_ranges[i].begin, written_ranges[i].length,
                                        row + read_ranges[i].begin, read_ranges[i].length});
  }
  return position.source;
}

}  // namespace mixtape
