#include "train/objective/make.h"

#include <algorithm>
#include <cmath>

#include "core/base/error.h"
#include "train/config/config.h"
#include "train/data/tokenizer/tokenizer.h"
#include "train/objective/causal_lm.h"
#include "train/objective/classify.h"
#include "train/objective/denoising.h"
#include "train/objective/instruct.h"
#include "train/objective/masked_lm.h"
#include "train/objective/seq2seq.h"
#include "train/objective/span_corruption.h"
#include "train/objective/tag.h"

namespace mixtape {
namespace {

using Data = std::unique_ptr<const Dataset>;

SpanPlan span_plan(const Config& config) {
  const ObjectiveConfig& o = config.objective;
  return plan_spans(int32_t(config.data.seq_length), o.noise_density, o.mean_span_length);
}

[[noreturn]] void not_of_text(ObjectiveKind kind) { throw Error("objective {} has no text", kind); }

// How the objective wants its data.
DatasetOptions dataset_options(const Config& config) {
  DatasetOptions options{.seq_length = int(config.data.seq_length), .seed = uint64_t(config.seed)};
  switch (config.objective.name) {
    case ObjectiveKind::causal_lm:
      options.framing = Framing::next_token;
      return options;
    case ObjectiveKind::masked_lm:
    case ObjectiveKind::denoising:
      options.framing = Framing::enclosed;
      return options;
    case ObjectiveKind::span_corruption:
      options.framing = Framing::plain;
      options.seq_length = span_plan(config).raw_length;
      return options;
    default:
      not_of_text(config.objective.name);
  }
}

SpanCorruption::Ids span_ids(const SpecialTokens& special) {
  if (!special.pad)
    throw ConfigError(
        "objective.name: span_corruption needs a padding token, with which the decoder begins; name pad_token in the "
        "tokenizer's tokenizer_config.json");
  return {.eos = *special.eos, .start = *special.pad, .sentinels = special.sentinels};
}

std::unique_ptr<Objective> of_text(const Config& config, const Tokenizer& tokenizer, Data data, uint64_t seed) {
  const ObjectiveConfig& o = config.objective;
  const bool document_mask = config.data.document_mask.value_or(true);
  switch (o.name) {
    case ObjectiveKind::causal_lm:
      return std::make_unique<CausalLm>(std::move(data), document_mask);
    case ObjectiveKind::masked_lm:
      return std::make_unique<MaskedLm>(std::move(data), o, token_table(tokenizer), document_mask, seed);
    case ObjectiveKind::denoising:
      return std::make_unique<Denoising>(std::move(data), o, token_table(tokenizer), document_mask, seed);
    case ObjectiveKind::span_corruption:
      return std::make_unique<SpanCorruption>(std::move(data), o, span_plan(config),
                                              span_ids(tokenizer.special_tokens()), seed);
    default:
      not_of_text(o.name);
  }
}

int32_t target_length(const Config& config) {
  return int32_t(config.data.decoder_seq_length.value_or(config.data.seq_length));
}

// A row is packed with no more examples than would fill it at four tokens each.
int32_t most_examples(const Config& config) {
  return config.data.pack ? std::max(1, int32_t(config.data.seq_length / 4)) : 1;
}

std::unique_ptr<const Task> task_of(const Config& config, const Tokenizer& tokenizer) {
  const auto length = int32_t(config.data.seq_length);
  switch (config.objective.name) {
    case ObjectiveKind::classify:
      return std::make_unique<Classify>(tokenizer, config.objective.labels, length);
    case ObjectiveKind::tag:
      return std::make_unique<Tag>(tokenizer, config.objective.labels, length);
    case ObjectiveKind::seq2seq:
      return std::make_unique<Seq2Seq>(tokenizer, length, target_length(config));
    case ObjectiveKind::instruct:
      return std::make_unique<Instruct>(tokenizer, length);
    default:
      throw Error("objective {} has no examples", config.objective.name);
  }
}

// Null where there is nothing to validate on.
std::unique_ptr<Objective> of_examples(const Config& config, const Tokenizer& tokenizer, Split split) {
  std::unique_ptr<const Task> task = task_of(config, tokenizer);
  const RowShape shape = row_shape(config);
  const RowLimits limits{.tokens = shape.length, .targets = shape.decoder_length, .examples = most_examples(config)};
  const bool types = config.model.token_types > 1;
  const auto encode = [&](const Record& record) {
    Example example = task->encode(record);
    if (!types) example.types.clear();
    return example;
  };
  std::vector<FineTuning::Source> sources;
  for (const SourceConfig& source : config.data.sources) {
    const bool validates = split == Split::validation, apart = source.validation.has_value();
    if (validates && !apart && config.data.validation_split <= 0) continue;
    ExampleRows::Options options{.name = source.name,
                                 .seed = validates ? 0 : uint64_t(config.seed),
                                 .max_epochs = validates ? std::optional(1.0) : source.max_epochs,
                                 .split = apart ? Split::all : split,
                                 .validation_split = config.data.validation_split};
    ExampleSet examples = read_examples(validates && apart ? *source.validation : source.path, encode);
    sources.push_back(
        {source.name, source.weight, std::make_unique<ExampleRows>(std::move(examples), limits, std::move(options))});
  }
  if (sources.empty()) return nullptr;
  const SpecialTokens& special = tokenizer.special_tokens();
  const int32_t start = decoder_start(config.objective.name, tokenizer).value_or(0);
  return std::make_unique<FineTuning>(std::move(task), std::move(sources), shape,
                                      FineTuning::Ids{special.pad.value_or(special.eos.value_or(0)), start});
}

}  // namespace

RowShape row_shape(const Config& config) {
  const auto length = int32_t(config.data.seq_length);
  switch (config.objective.name) {
    case ObjectiveKind::causal_lm:
      return {.length = length, .most_targets = length};
    case ObjectiveKind::masked_lm:
      return {.length = length, .most_targets = most_predictions(length, config.objective)};
    case ObjectiveKind::denoising:
      return {.length = length, .decoder_length = length, .most_targets = length};
    case ObjectiveKind::span_corruption: {
      const int32_t targets = span_plan(config).targets_length;
      if (config.model.position == Position::learned && targets > config.model.max_positions)
        throw ConfigError(
            "objective.noise_density: the decoder writes {} tokens for data.seq_length {}, but model.max_positions is "
            "{}; "
            "lower one of the first two or raise the third",
            targets, length, config.model.max_positions);
      return {.length = length, .decoder_length = targets, .most_targets = targets};
    }
    case ObjectiveKind::classify:
      return {.length = length, .most_targets = most_examples(config)};
    case ObjectiveKind::tag:
    case ObjectiveKind::instruct:
      return {.length = length, .most_targets = length};
    case ObjectiveKind::seq2seq:
      return {.length = length, .decoder_length = target_length(config), .most_targets = target_length(config)};
  }
  throw Error("objective {} has no rows", config.objective.name);
}

std::optional<int32_t> decoder_start(ObjectiveKind kind, const Tokenizer& tokenizer) {
  switch (kind) {
    case ObjectiveKind::span_corruption:
      return tokenizer.special_tokens().pad;
    case ObjectiveKind::denoising:
      return tokenizer.special_tokens().sep;
    case ObjectiveKind::seq2seq: {
      // As the published models: BART, which begins texts with cls, starts with sep; T5 with the padding token.
      const SpecialTokens& special = tokenizer.special_tokens();
      const TextFrame frame(tokenizer);
      const bool begins = special.cls && !frame.before().empty() && frame.before().front() == special.cls;
      const auto start = begins ? special.sep : special.pad;
      if (!start)
        throw ConfigError(
            "objective.name: seq2seq needs a padding token, with which the decoder begins; name pad_token in the "
            "tokenizer's tokenizer_config.json");
      return start;
    }
    default:
      return std::nullopt;
  }
}

std::unique_ptr<Objective> training_objective(const Config& config, const Tokenizer& tokenizer) {
  if (is_fine_tuning(config.objective.name)) return of_examples(config, tokenizer, Split::training);
  return of_text(config, tokenizer, training_dataset(config.data, vocabulary_of(tokenizer), dataset_options(config)),
                 uint64_t(config.seed));
}

std::unique_ptr<Objective> validation_objective(const Config& config, const Tokenizer& tokenizer) {
  if (is_fine_tuning(config.objective.name)) return of_examples(config, tokenizer, Split::validation);
  Data data = validation_dataset(config.data, vocabulary_of(tokenizer), dataset_options(config));
  return data ? of_text(config, tokenizer, std::move(data), 0) : nullptr;
}

std::vector<Validation> validations(const Config& config, const Tokenizer& tokenizer) {
  std::vector<Validation> all;
  const auto add = [&](std::string source, std::unique_ptr<Objective> objective, int64_t tokens) {
    if (objective) all.push_back({std::move(source), std::move(objective), std::max<int64_t>(1, tokens)});
  };
  if (is_fine_tuning(config.objective.name) || config.data.sources.size() < 2) {
    add("", validation_objective(config, tokenizer), config.eval.tokens);
    return all;
  }
  double weights = 0;
  for (size_t i = 0; i < config.data.sources.size(); ++i)
    if (config.data.sources[i].validation || config.data.validation_split > 0)
      weights += config.data.greatest_weight(i);
  for (size_t i = 0; i < config.data.sources.size(); ++i) {
    const double weight = config.data.greatest_weight(i);
    if (weight == 0) continue;
    Config one = config;
    one.data.stages.clear();
    one.data.sources = {config.data.sources[i]};
    one.data.sources[0].weight = weight;
    add(name_of_source(one.data.sources[0]), validation_objective(one, tokenizer),
        std::llround(double(config.eval.tokens) * weight / weights));
  }
  return all;
}

}  // namespace mixtape
