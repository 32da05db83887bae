#include "train/data/packed_source.h"

#include <xxhash.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/base/error.h"
#include "core/base/philox.h"

namespace mixtape {
namespace {

constexpr uint64_t stride = 256;

uint64_t ceil_divide(uint64_t a, uint64_t b) { return a / b + (a % b != 0); }

}  // namespace

EpochIndex::EpochIndex(std::span<const uint32_t> units, std::function<uint64_t(uint64_t)> order)
    : units_(units), order_(std::move(order)) {
  uint64_t sum = 0;
  for (uint64_t position = 0; position < units_.size(); ++position) {
    if (position % stride == 0) before_.push_back(sum);
    sum += units_[order_(position)];
  }
}

EpochIndex::Place EpochIndex::locate(uint64_t unit) const {
  const size_t block = size_t(std::upper_bound(before_.begin(), before_.end(), unit) - before_.begin()) - 1;
  uint64_t position = block * stride, offset = unit - before_[block];
  for (;; ++position) {
    const uint64_t units = units_[order_(position)];
    if (offset < units) return {position, offset};
    offset -= units;
  }
}

uint64_t ValidationRule::hash(uint64_t index) { return mix64(mix64(index) ^ 0x6d69787461706531ull); }

uint64_t ValidationRule::threshold_of(double share) {
  return share >= 1 ? UINT64_MAX : uint64_t(std::max(share, 0.0) * 0x1p64);
}

bool ValidationRule::is_validation(uint64_t index, double share) {
  return share > 0 && hash(index) <= threshold_of(share);
}

ValidationRule::ValidationRule(uint64_t num_documents, double share) : share_(share), threshold_(threshold_of(share)) {
  if (share <= 0) return;
  uint64_t least = UINT64_MAX;
  for (uint64_t d = 0; d < num_documents && least > threshold_; ++d) least = std::min(least, hash(d));
  threshold_ = std::max(threshold_, least);
}

PackedSource::PackedSource(const DatasetSource& source, const Vocabulary& vocabulary, const DatasetOptions& options)
    : source_(source), vocabulary_(vocabulary), options_(options) {
  const TokenSourceInfo& info = source_.tokens->info();
  if (info.fingerprint && vocabulary_.fingerprint && *info.fingerprint != *vocabulary_.fingerprint)
    throw DataError(
        "{}: made with another tokenizer (fingerprint {:016x}) than data.tokenizer ({:016x}); prepare the "
        "data again or name its tokenizer",
        info.path, *info.fingerprint, *vocabulary_.fingerprint);
  if (info.vocab_size && *info.vocab_size > vocabulary_.size)
    throw DataError("{}: made for a vocabulary of {} tokens, the tokenizer has {}", info.path, *info.vocab_size,
                    vocabulary_.size);
  set_framing();
  measure_documents();
  set_limit();
}

void PackedSource::set_framing() {
  stride_ = uint64_t(options_.seq_length);
  switch (options_.framing) {
    case Framing::next_token:
      shared_ = 1;
      opening_ = vocabulary_.bos_id;
      closing_ = vocabulary_.eos_id;
      // In a stream, the token that closed the document before opens this one.
      if (!options_.pack && !opening_) opening_ = closing_;
      return;
    case Framing::enclosed:
      shared_ = 2;
      stride_ -= 2;
      opening_ = vocabulary_.cls_id;
      closing_ = vocabulary_.sep_id;
      return;
    case Framing::plain:
      return;
  }
}

void PackedSource::measure_documents() {
  const TokenSource& tokens = *source_.tokens;
  const uint64_t count = tokens.num_documents();
  const Split split = source_.split ? options_.split : Split::all;
  const ValidationRule rule(count, split == Split::all ? 0 : options_.validation_split);
  units_.resize(count);
  for (uint64_t d = 0; d < count; ++d) {
    if (split != Split::all && rule.is_validation(d) != (split == Split::validation)) continue;
    const uint64_t length = tokens.document(d).length;
    if (length == 0) continue;
    if (length >= std::numeric_limits<uint32_t>::max() - 2)
      throw DataError("{}: document {} has {} tokens, the most is {}", tokens.info().path, d, length,
                      std::numeric_limits<uint32_t>::max() - 3);
    const uint64_t enclosed = length + opening_.has_value() + closing_.has_value();
    units_[d] = uint32_t(options_.pack ? enclosed : ceil_divide(enclosed - shared_, stride_));
    units_per_epoch_ += units_[d];
    tokens_per_epoch_ += enclosed;
    ++documents_;
  }
  if (documents_ > 0) return;
  if (split == Split::all || count == 0) throw DataError("{}: holds no documents with text", tokens.info().path);
  throw DataError(
      "{}: of {} document{}, none is left for {} with data.validation_split {}; cut the text into documents "
      "(--separator), give the source a `validation` path, or set data.validation_split to 0",
      tokens.info().path, count, count == 1 ? "" : "s", split == Split::training ? "training" : "validation",
      options_.validation_split);
}

void PackedSource::set_limit() {
  if (!source_.max_epochs) return;
  const double units = std::floor(*source_.max_epochs * double(units_per_epoch_));
  if (units >= 0x1p63) return;  // more than any run can take
  // A whole number of epochs is exact in integers, which doubles are not above 2^53.
  const bool whole = *source_.max_epochs == std::floor(*source_.max_epochs);
  end_ = whole ? uint64_t(*source_.max_epochs) * units_per_epoch_ : uint64_t(units);
  if (options_.pack) {
    limit_ = end_ <= shared_ ? 0 : ceil_divide(end_ - shared_, stride_);
  } else {
    limit_ = end_;
  }
  if (*limit_ == 0)
    throw ConfigError("data.sources: max_epochs {} of {} is less than one sample", *source_.max_epochs, source_.name);
}

SourceStatistics PackedSource::statistics() const {
  return {.name = source_.name,
          .documents = documents_,
          .tokens_per_epoch = tokens_per_epoch_,
          .samples = limit_,
          .samples_per_epoch = double(units_per_epoch_) / double(options_.pack ? stride_ : 1)};
}

std::shared_ptr<const EpochIndex> PackedSource::epoch(uint64_t index) const {
  const std::lock_guard lock(mutex_);
  auto& [known, epoch] = epochs_[index % 2];
  if (!epoch || known != index) {
    // Keyed by the name, so that adding or moving a source leaves the order of the others alone.
    const auto site = uint32_t(XXH3_64bits(source_.name.data(), source_.name.size()));
    const Permutation order(units_.size(), options_.seed, site, index);
    known = index;
    epoch = std::make_shared<EpochIndex>(units_, order);
  }
  return epoch;
}

void PackedSource::sample(uint64_t ordinal, Sample& out) const {
  out.tokens.clear();
  out.document_starts.clear();
  if (options_.pack) {
    sample_window(ordinal, out);
  } else {
    sample_row(ordinal, out);
  }
  if (options_.framing == Framing::enclosed) enclose(out);
  check_tokens(out);
}

void PackedSource::sample_window(uint64_t ordinal, Sample& out) const {
  uint64_t unit = ordinal * stride_;
  uint64_t left = std::min(stride_ + shared_, end_ - unit);
  const size_t opens_before = opening_ || !closing_ ? 0 : 1;  // the closing token of the document before opens this one
  out.epoch = unit / units_per_epoch_;
  while (left > 0) {
    const uint64_t epoch_number = unit / units_per_epoch_;
    const auto index = epoch(epoch_number);
    EpochIndex::Place place = index->locate(unit % units_per_epoch_);
    for (; left > 0 && place.position < units_.size(); ++place.position, place.offset = 0) {
      const uint64_t document = index->document(place.position);
      if (units_[document] == 0) continue;
      const uint64_t count = std::min<uint64_t>(left, units_[document] - place.offset);
      if (place.offset == 0 && out.tokens.size() > opens_before)
        out.document_starts.push_back(int32_t(out.tokens.size() - opens_before));
      append(document, place.offset, count, out);
      left -= count;
      unit += count;
    }
  }
}

void PackedSource::sample_row(uint64_t ordinal, Sample& out) const {
  out.epoch = ordinal / units_per_epoch_;
  const auto index = epoch(out.epoch);
  const EpochIndex::Place place = index->locate(ordinal % units_per_epoch_);
  const uint64_t document = index->document(place.position);
  const uint64_t first = place.offset * stride_;
  const uint64_t length = source_.tokens->document(document).length + opening_.has_value() + closing_.has_value();
  append(document, first, std::min(stride_ + shared_, length - first), out);
}

// Tokens [offset, offset + count) of a document with those that enclose it; count > 0.
void PackedSource::append(uint64_t document, uint64_t offset, uint64_t count, Sample& out) const {
  const DocumentSpan span = source_.tokens->document(document);
  if (opening_ && offset == 0) {
    out.tokens.push_back(*opening_);
    --count;
  } else if (opening_) {
    --offset;
  }
  const size_t at = out.tokens.size();
  out.tokens.resize(at + count, closing_.value_or(0));
  const uint64_t from_file = offset < span.length ? std::min(count, span.length - offset) : 0;
  source_.tokens->read(span.first + offset, std::span(out.tokens).subspan(at, from_file));
}

// The first and the last token of a window are shown by its neighbours.
void PackedSource::enclose(Sample& out) const {
  out.tokens.front() = *opening_;
  out.tokens.back() = *closing_;
  auto& starts = out.document_starts;
  const auto last = int32_t(out.tokens.size()) - 1;
  std::erase_if(starts, [&](int32_t start) { return start == 1 || start == last; });
}

void PackedSource::check_tokens(const Sample& sample) const {
  uint32_t greatest = 0;  // a negative id is a great unsigned one
  for (const int32_t token : sample.tokens) greatest = std::max(greatest, uint32_t(token));
  if (greatest >= uint32_t(vocabulary_.size))
    throw DataError(
        "{}: token {} does not belong to the tokenizer's vocabulary of {}: the file is damaged or was made "
        "with another tokenizer",
        source_.tokens->info().path, int32_t(greatest), vocabulary_.size);
}

}  // namespace mixtape
