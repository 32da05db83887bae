// The objective that a configuration asks for, on its data.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "train/config/objective.h"
#include "train/objective/objective.h"

namespace mixtape {

struct Config;
class Tokenizer;

// Capacities of a row, without data or a tokenizer: what plans need. The objective's shape() is the same. Throws
// ConfigError if the decoder's row is longer than the model's table of positions.
RowShape row_shape(const Config& config);

// The first token that the decoder reads; none where there is one stack.
std::optional<int32_t> decoder_start(ObjectiveKind kind, const Tokenizer& tokenizer);

// On the training split; and on the validation split, null where there is none. Validation neither shuffles nor masks
// by config.seed, so it is the same for all runs. Throws ConfigError when the tokenizer lacks a token that the
// objective needs, DataError for the data.
std::unique_ptr<Objective> training_objective(const Config& config, const Tokenizer& tokenizer);
std::unique_ptr<Objective> validation_objective(const Config& config, const Tokenizer& tokenizer);

// Validation of one source of a mixture of texts: `tokens` is its part of eval.tokens, by weight. Examples of
// fine-tuning are validated together, as their scores are. Empty where there is nothing to validate on.
struct Validation {
  std::string source;
  std::unique_ptr<Objective> objective;
  int64_t tokens = 0;
};
std::vector<Validation> validations(const Config& config, const Tokenizer& tokenizer);

}  // namespace mixtape
