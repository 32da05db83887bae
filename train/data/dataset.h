// The training data as one endless list of samples: Dataset::sample(i) is a pure function of (seed, i).
//
//   i -> Mixture -> (source, ordinal) -> window of the source's packed stream
//
// A source's stream is its documents, each closed by one end-of-sequence token, in an order drawn anew for every epoch
// (train/data/shuffle.h), epoch after epoch. With `pack`, sample k of a source is the window of seq_length + 1 tokens
// at position k * seq_length: consecutive windows share one token, so each token is an input once per epoch (Megatron's
// sample index). Without `pack`, a sample is one document, or the next seq_length tokens of a longer one.
//
// A source with max_epochs ends with a shorter window rather than lose tokens. Empty documents are left out.
//
// Validation: a share of the documents of each source, chosen by a hash of the document's index alone (never of the
// seed, so no resume can leak them into training), or a path of its own. Each validation token is seen exactly once.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "train/data/mixture.h"
#include "train/data/token_source.h"

namespace mixtape {

struct DataConfig;
class PackedSource;
class Tokenizer;

// What the data must agree with. A shard whose fingerprint differs is refused.
struct Vocabulary {
  int32_t size = 0;
  int32_t eos_id = 0;
  std::optional<uint64_t> fingerprint = std::nullopt;
};

// Of a tokenizer; DataError if it has no end-of-sequence token.
Vocabulary vocabulary_of(const Tokenizer& tokenizer);

// One sample, reused from call to call.
struct Sample {
  std::vector<int32_t> tokens;           // at most seq_length + 1, less only at the end of a document or of the data
  std::vector<int32_t> document_starts;  // offsets > 0 in `tokens` where another document begins
  uint64_t index = 0;
  int source = 0;
  uint64_t epoch = 0;  // of its source, at the first token
};

struct SourceStatistics {
  std::string name;
  uint64_t documents = 0;                          // that take part: not empty, in this split
  uint64_t tokens_per_epoch = 0;                   // end-of-sequence tokens included
  std::optional<uint64_t> samples = std::nullopt;  // until max_epochs
};

// One source of a dataset as a caller gives it, without a config.
struct DatasetSource {
  std::string name;
  std::shared_ptr<const TokenSource> tokens;
  double weight = 1;
  std::optional<double> max_epochs = std::nullopt;
  bool split = true;  // false: all its documents belong to the dataset, whatever DatasetOptions::split says
};

enum class Split { all, training, validation };

struct DatasetOptions {
  int seq_length = 0;
  bool pack = true;
  Split split = Split::all;
  double validation_split = 0;  // share of documents that `validation` takes and `training` leaves
  uint64_t seed = 0;
};

class Dataset {
 public:
  Dataset(std::vector<DatasetSource> sources, const Vocabulary& vocabulary, const DatasetOptions& options);
  ~Dataset();

  // Fills `out` with sample `index`. Thread-safe. Throws DataError when max_epochs of all sources are over (the message
  // says when), or when a token id lies outside the vocabulary.
  void sample(uint64_t index, Sample& out) const;

  // Number of samples, if every source has max_epochs.
  std::optional<uint64_t> size() const { return mixture_->size(); }
  int seq_length() const { return options_.seq_length; }
  int32_t eos_id() const { return vocabulary_.eos_id; }
  std::vector<SourceStatistics> statistics() const;
  // Samples of each source among the first `samples`: realised shares.
  std::vector<uint64_t> counts(uint64_t samples) const { return mixture_->counts(samples); }

 private:
  Vocabulary vocabulary_;
  DatasetOptions options_;
  std::vector<std::unique_ptr<PackedSource>> sources_;
  std::unique_ptr<Mixture> mixture_;
};

// From the `data` section. The validation dataset is null when neither a split nor a validation path is given; its
// order does not depend on the seed.
std::unique_ptr<Dataset> training_dataset(const DataConfig& config, const Vocabulary& vocabulary, uint64_t seed);
std::unique_ptr<Dataset> validation_dataset(const DataConfig& config, const Vocabulary& vocabulary);

}  // namespace mixtape
