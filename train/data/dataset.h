// The training data as one endless list of samples: Dataset::sample(i) is a pure function of (seed, i).
//
//   i -> Mixture -> (source, ordinal) -> window of the source's packed stream
//
// A source's stream is its documents in an order drawn anew for every epoch (train/data/shuffle.h), epoch after epoch,
// and a sample is a window of it. What stands between documents, and how windows overlap, is the objective's to say:
//
//   Framing::next_token  Each document is closed by eos. A sample is a window of seq_length + 1 tokens at k *
//   seq_length:
//                        the last token is the target of the one before, so windows share one token and each token is
//                        an input once an epoch (Megatron's sample index). The eos that closes a document also opens
//                        the next one: it is the last target of the first and the first input of the second, as in
//                        GPT-2. A tokenizer that begins every text with bos (LLaMA) has documents bos ... eos.
//   Framing::enclosed    Documents are cls ... sep. A sample is a window of seq_length tokens at k * (seq_length - 2)
//                        whose first token is replaced by cls and its last one by sep: windows share two tokens, of
//                        which each shows one, so every token is seen once and every part of a document is enclosed.
//   Framing::plain       Documents follow one another with nothing between. A sample is seq_length tokens (T5).
//
// Without `pack`, a sample is one document, or the next part of a longer one; it begins with its opening token.
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
struct SourceConfig;
class PackedSource;
class Tokenizer;

// What the data must agree with. A shard whose fingerprint differs is refused.
struct Vocabulary {
  int32_t size = 0;
  int32_t eos_id = 0;
  std::optional<uint64_t> fingerprint = std::nullopt;
  std::optional<int32_t> bos_id = std::nullopt;  // where every text begins with one and it is not eos_id
  std::optional<int32_t> cls_id = std::nullopt, sep_id = std::nullopt;
};

// Of a tokenizer; DataError if it has no end-of-sequence token.
Vocabulary vocabulary_of(const Tokenizer& tokenizer);

// One sample, reused from call to call.
struct Sample {
  std::vector<int32_t> tokens;           // less than a window only at the end of a document or of the data
  std::vector<int32_t> document_starts;  // offsets > 0 of the tokens that open further documents, ascending
  uint64_t index = 0;
  int source = 0;
  uint64_t epoch = 0;  // of its source, at the first token
};

struct SourceStatistics {
  std::string name;
  uint64_t documents = 0;                          // that take part: not empty, in this split
  uint64_t tokens_per_epoch = 0;                   // those that enclose documents included
  std::optional<uint64_t> samples = std::nullopt;  // until max_epochs
  double samples_per_epoch = 1;
  uint64_t cut = 0, without_target = 0;  // of examples: longer than a row; left out, since nothing was left to predict
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
enum class Framing { next_token, enclosed, plain };

struct DatasetOptions {
  int seq_length = 0;
  Framing framing = Framing::next_token;
  bool pack = true;
  Split split = Split::all;
  double validation_split = 0;  // share of documents that `validation` takes and `training` leaves
  uint64_t seed = 0;
  std::vector<MixtureStage> stages = {};  // with other weights than the sources' own
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

// Its name, or the last part of its path.
std::string name_of_source(const SourceConfig& source);

// From the `data` section. Of `options`, seq_length, framing and seed are the caller's. The validation dataset is null
// when neither a split nor a validation path is given; its order does not depend on the seed.
std::unique_ptr<Dataset> training_dataset(const DataConfig& config, const Vocabulary& vocabulary,
                                          DatasetOptions options);
std::unique_ptr<Dataset> validation_dataset(const DataConfig& config, const Vocabulary& vocabulary,
                                            DatasetOptions options);

}  // namespace mixtape
