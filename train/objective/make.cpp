#include "train/objective/make.h"

#include "core/base/error.h"
#include "train/config/config.h"
#include "train/data/tokenizer/tokenizer.h"
#include "train/objective/causal_lm.h"
#include "train/objective/denoising.h"
#include "train/objective/masked_lm.h"
#include "train/objective/span_corruption.h"

namespace mixtape {
namespace {

using Data = std::unique_ptr<const Dataset>;

SpanPlan span_plan(const Config& config) {
  const ObjectiveConfig& o = config.objective;
  return plan_spans(int32_t(config.data.seq_length), o.noise_density, o.mean_span_length);
}

[[noreturn]] void unavailable(ObjectiveKind kind) {
  throw ConfigError("objective.name is {}, which is not available in this version", kind);
}

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
      unavailable(config.objective.name);
  }
}

SpanCorruption::Ids span_ids(const SpecialTokens& special) {
  if (!special.pad)
    throw ConfigError(
        "objective.name: span_corruption needs a padding token, with which the decoder begins; name pad_token in the "
        "tokenizer's tokenizer_config.json");
  return {.eos = *special.eos, .start = *special.pad, .sentinels = special.sentinels};
}

std::unique_ptr<Objective> make(const Config& config, const Tokenizer& tokenizer, Data data, uint64_t seed) {
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
      unavailable(o.name);
  }
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
    default:
      unavailable(config.objective.name);
  }
}

std::optional<int32_t> decoder_start(ObjectiveKind kind, const Tokenizer& tokenizer) {
  switch (kind) {
    case ObjectiveKind::span_corruption:
      return tokenizer.special_tokens().pad;
    case ObjectiveKind::denoising:
      return tokenizer.special_tokens().sep;
    default:
      return std::nullopt;
  }
}

std::unique_ptr<Objective> training_objective(const Config& config, const Tokenizer& tokenizer) {
  return make(config, tokenizer, training_dataset(config.data, vocabulary_of(tokenizer), dataset_options(config)),
              uint64_t(config.seed));
}

std::unique_ptr<Objective> validation_objective(const Config& config, const Tokenizer& tokenizer) {
  Data data = validation_dataset(config.data, vocabulary_of(tokenizer), dataset_options(config));
  return data ? make(config, tokenizer, std::move(data), 0) : nullptr;
}

}  // namespace mixtape
