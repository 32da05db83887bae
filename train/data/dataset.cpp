#include "train/data/dataset.h"

#include "core/base/error.h"
#include "train/config/data.h"
#include "train/data/packed_source.h"
#include "train/data/tokenizer/tokenizer.h"

namespace mixtape {
namespace {

std::shared_ptr<const TokenSource> open_source(const SourceConfig& source, const std::string& path,
                                               const Vocabulary& vocabulary) {
  return open_tokens(path, {.format = parse_token_format(source.format), .eos_id = vocabulary.eos_id});
}

void complete(DatasetOptions& options, const DataConfig& config, Split split) {
  options.pack = config.pack;
  options.validation_split = config.validation_split;
  options.split = split;
}

// The token that the tokenizer puts before every text, if it is not the one that ends them: training begins documents
// with what prompts begin with.
std::optional<int32_t> opening_token(const Tokenizer& tokenizer) {
  const std::optional<int32_t> bos = tokenizer.bos_id();
  const std::vector<int32_t> ids = tokenizer.encode("a", {.add_special = true});
  return bos && bos != tokenizer.eos_id() && !ids.empty() && ids.front() == *bos ? bos : std::nullopt;
}

}  // namespace

std::string name_of_source(const SourceConfig& source) {
  if (!source.name.empty()) return source.name;
  const std::filesystem::path path(source.path);
  return (path.has_filename() ? path : path.parent_path()).filename().string();
}

Vocabulary vocabulary_of(const Tokenizer& tokenizer) {
  if (!tokenizer.eos_id())
    throw DataError(
        "the tokenizer ({}) has no end-of-sequence token, which separates documents; name one as eos_token "
        "in tokenizer_config.json",
        tokenizer.description());
  const SpecialTokens& special = tokenizer.special_tokens();
  return {.size = tokenizer.vocab_size(),
          .eos_id = *special.eos,
          .fingerprint = tokenizer.fingerprint(),
          .bos_id = opening_token(tokenizer),
          .cls_id = special.cls,
          .sep_id = special.sep};
}

Dataset::Dataset(std::vector<DatasetSource> sources, const Vocabulary& vocabulary, const DatasetOptions& options)
    : vocabulary_(vocabulary), options_(options) {
  if (sources.empty()) throw ConfigError("data.sources is empty: name at least one directory of token shards");
  if (options.seq_length < 1) throw ConfigError("data.seq_length is {}, expected 1 or more", options.seq_length);
  if (options.framing == Framing::enclosed) {
    if (options.seq_length < 3)
      throw ConfigError("data.seq_length is {}, expected 3 or more: two tokens enclose each sequence",
                        options.seq_length);
    if (!vocabulary.cls_id || !vocabulary.sep_id)
      throw ConfigError(
          "data.tokenizer: this objective encloses documents in cls and sep, which the tokenizer lacks; name cls_token "
          "and sep_token in its tokenizer_config.json");
  }
  std::vector<MixtureSource> shares;
  for (const DatasetSource& source : sources) {
    sources_.push_back(std::make_unique<PackedSource>(source, vocabulary_, options_));
    shares.push_back({source.name, source.weight, sources_.back()->limit()});
  }
  mixture_ = std::make_unique<Mixture>(std::move(shares), options_.stages);
}

Dataset::~Dataset() = default;

void Dataset::sample(uint64_t index, Sample& out) const {
  const Mixture::Position position = mixture_->position(index);
  out.index = index;
  out.source = position.source;
  sources_[size_t(position.source)]->sample(position.ordinal, out);
}

std::vector<SourceStatistics> Dataset::statistics() const {
  std::vector<SourceStatistics> all;
  for (const auto& source : sources_) all.push_back(source->statistics());
  return all;
}

std::unique_ptr<Dataset> training_dataset(const DataConfig& config, const Vocabulary& vocabulary,
                                          DatasetOptions options) {
  complete(options, config, Split::training);
  for (const StageConfig& stage : config.stages)
    options.stages.push_back(
        {uint64_t((stage.from_tokens + config.seq_length - 1) / config.seq_length), stage.weights});
  std::vector<DatasetSource> sources;
  for (const SourceConfig& source : config.sources)
    sources.push_back({name_of_source(source), open_source(source, source.path, vocabulary), source.weight,
                       source.max_epochs, !source.validation});
  return std::make_unique<Dataset>(std::move(sources), vocabulary, options);
}

std::unique_ptr<Dataset> validation_dataset(const DataConfig& config, const Vocabulary& vocabulary,
                                            DatasetOptions options) {
  complete(options, config, Split::validation);
  options.seed = 0;
  std::vector<DatasetSource> sources;
  for (size_t i = 0; i < config.sources.size(); ++i) {
    const SourceConfig& source = config.sources[i];
    if (!source.validation && config.validation_split <= 0) continue;
    const std::string& path = source.validation ? *source.validation : source.path;
    sources.push_back({name_of_source(source), open_source(source, path, vocabulary), config.greatest_weight(i), 1.0,
                       !source.validation});
  }
  if (sources.empty()) return nullptr;
  return std::make_unique<Dataset>(std::move(sources), vocabulary, options);
}

}  // namespace mixtape
