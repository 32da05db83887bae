// Loss over a dataset, in order, without gradients.
#pragma once

#include <functional>
#include <optional>

#include "train/data/tokenizer/tokenizer.h"
#include "train/engine.h"
#include "train/objective/objective.h"

namespace mixtape {

struct Evaluation {
  double loss = 0;  // mean over targets, nats
  int64_t targets = 0;
  std::optional<double>
      bits_per_byte;               // loss in bits over the bytes of the target tokens, where the tokenizer is known
  int64_t bytes = 0;               // of the target tokens, where the tokenizer is known
  std::vector<Score> scores;       // of the objective's scorer
  std::optional<double> accuracy;  // the share of targets that were the likeliest token, where asked for
  double perplexity() const;
};

// Of the same model on several data: means over all their targets. Scores are those of a single one.
Evaluation together(const std::vector<Evaluation>& parts);

// Samples 0, 1, ... of the objective until `max_targets` or its end; the last micro-batch is filled with padding.
// `tokenizer` may be null. `progress` is called with the number of targets done. Accuracy takes the logits of targets
// to the host (score_targets).
Evaluation evaluate(Engine& engine, const Objective& objective, int64_t max_targets, const Tokenizer* tokenizer,
                    const std::function<void(int64_t)>& progress = {}, bool accuracy = false);

}  // namespace mixtape
