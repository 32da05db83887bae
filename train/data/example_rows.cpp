#include "train/data/example_rows.h"

#include <xxhash.h>

#include <cmath>

#include "core/base/error.h"
#include "train/data/packed_source.h"
#include "train/data/shuffle.h"

namespace mixtape {

ExampleRows::ExampleRows(ExampleSet examples, const RowLimits& limits, Options options)
    : examples_(std::move(examples)), limits_(limits), options_(std::move(options)) {
  const ValidationRule rule(examples_.size(), options_.split == Split::all ? 0 : options_.validation_split);
  uint64_t tokens = 0;
  for (uint32_t i = 0; i < examples_.size(); ++i) {
    if (options_.split != Split::all && rule.is_validation(i) != (options_.split == Split::validation)) continue;
    members_.push_back(i);
    tokens += examples_[i].tokens.size();
  }
  if (members_.empty())
    throw DataError(
        "{}: of {} examples none is left for {} with data.validation_split {}; give the source a `validation` path, or "
        "set data.validation_split to 0",
        options_.name, examples_.size(), options_.split == Split::training ? "training" : "validation",
        options_.validation_split);
  uint64_t rows = 0;  // of the first epoch
  while (beginning(rows) < members_.size()) ++rows;
  if (options_.max_epochs) {
    const double places = std::floor(*options_.max_epochs * double(members_.size()));
    if (places < 1)
      throw ConfigError("data.sources: max_epochs {} of {} is less than one example", *options_.max_epochs,
                        options_.name);
    // All rows are walked to count them: more examples than that take too long, and no run does.
    if (places < 0x1p32) {
      end_ = uint64_t(places);
      uint64_t count = 0;
      for (beginnings_ = {0}; beginning(count) < end_;) ++count;
      limit_ = count;
    }
  }
  statistics_ = {.name = options_.name,
                 .documents = members_.size(),
                 .tokens_per_epoch = tokens,
                 .samples = limit_,
                 .samples_per_epoch = double(rows),
                 .cut = examples_.cut(),
                 .without_target = examples_.without_target()};
}

uint32_t ExampleRows::example_at(uint64_t place) const {
  const uint64_t n = members_.size();
  const auto site = uint32_t(XXH3_64bits(options_.name.data(), options_.name.size()));
  return members_[Permutation(n, options_.seed, site, place / n)(place % n)];
}

// The place after the last example of a row that begins at `begin`.
uint64_t ExampleRows::end_of_row(uint64_t begin) const {
  int64_t tokens = 0, targets = 0;
  uint64_t end = begin;
  for (; end < end_ && end - begin < uint64_t(limits_.examples); ++end) {
    const ExampleView example = examples_[example_at(end)];
    tokens += int64_t(example.tokens.size());
    targets += int64_t(example.targets.size());
    if (end > begin && (tokens > limits_.tokens || (limits_.targets > 0 && targets > limits_.targets))) break;
  }
  return end;
}

uint64_t ExampleRows::beginning(uint64_t ordinal) const {
  const std::lock_guard lock(mutex_);
  while (beginnings_.size() <= ordinal) beginnings_.push_back(end_of_row(beginnings_.back()));
  return beginnings_[ordinal];
}

std::vector<uint32_t> ExampleRows::row(uint64_t ordinal) const {
  const uint64_t end = beginning(ordinal + 1);
  std::vector<uint32_t> examples;
  for (uint64_t place = beginning(ordinal); place < end; ++place) examples.push_back(example_at(place));
  return examples;
}

}  // namespace mixtape
