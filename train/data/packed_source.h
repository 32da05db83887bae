// One source of a dataset: its documents in a new order every epoch, cut into windows.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "train/data/dataset.h"
#include "train/data/shuffle.h"
#include "train/data/token_source.h"

namespace mixtape {

// Where each unit (a token, or a row) of an epoch lies: Megatron's sample index for any offset. The units before every
// 256th document are kept, so a billion documents take 32 MB and a look-up walks at most 256 of them.
class EpochIndex {
 public:
  struct Place {
    uint64_t position = 0;  // in the order of the epoch
    uint64_t offset = 0;    // units of that document before this one
  };

  // units[d] of document d; order(position) = document.
  EpochIndex(std::span<const uint32_t> units, std::function<uint64_t(uint64_t)> order);

  uint64_t document(uint64_t position) const { return order_(position); }
  // `unit` < the sum of all units.
  Place locate(uint64_t unit) const;

 private:
  std::span<const uint32_t> units_;
  std::function<uint64_t(uint64_t)> order_;
  std::vector<uint64_t> before_;  // units before position k * stride
};

// Whether document `index` of a source belongs to validation: a hash of the index alone. A share chosen by chance of
// few documents may be empty; then the document with the least hash is taken, so that validation always has one.
class ValidationRule {
 public:
  ValidationRule(uint64_t num_documents, double share);
  bool is_validation(uint64_t index) const { return share_ > 0 && hash(index) <= threshold_; }

  // For a stream whose length is not known: without the guarantee of at least one document.
  static bool is_validation(uint64_t index, double share);

 private:
  static uint64_t hash(uint64_t index);
  static uint64_t threshold_of(double share);
  double share_;
  uint64_t threshold_;
};

class PackedSource {
 public:
  PackedSource(const DatasetSource& source, const Vocabulary& vocabulary, const DatasetOptions& options);

  // Samples until max_epochs; none if there is no limit.
  std::optional<uint64_t> limit() const { return limit_; }
  SourceStatistics statistics() const;
  // Fills all of `out` but index and source.
  void sample(uint64_t ordinal, Sample& out) const;

 private:
  void set_framing();
  void measure_documents();
  void set_limit();
  std::shared_ptr<const EpochIndex> epoch(uint64_t index) const;
  void sample_window(uint64_t ordinal, Sample& out) const;
  void sample_row(uint64_t ordinal, Sample& out) const;
  void append(uint64_t document, uint64_t offset, uint64_t count, Sample& out) const;
  void enclose(Sample& out) const;
  void check_tokens(const Sample& sample) const;

  DatasetSource source_;
  Vocabulary vocabulary_;
  DatasetOptions options_;
  std::optional<int32_t> opening_, closing_;  // tokens before and after each document
  uint64_t stride_ = 0, shared_ = 0;          // a sample is stride + shared tokens, the last ones shared with the next
  std::vector<uint32_t> units_;               // of each document: tokens as it is enclosed, or rows; 0 = takes no part
  uint64_t units_per_epoch_ = 0, documents_ = 0, tokens_per_epoch_ = 0;
  uint64_t end_ = UINT64_MAX;  // of the stream, in units
  std::optional<uint64_t> limit_;

  // Two epochs: a window, and neighbouring samples in flight, may straddle the end of one.
  mutable std::mutex mutex_;
  mutable std::array<std::pair<uint64_t, std::shared_ptr<const EpochIndex>>, 2> epochs_;
};

}  // namespace mixtape
