// What a model says of each target: its log-likelihood, and whether it is the likeliest token.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "train/engine.h"

namespace mixtape {

struct TargetScore {
  int32_t row = 0;  // of the stack that predicts
  double log_likelihood = 0;
  bool likeliest = false;  // no token is likelier
};

// Scores of the batch that the engine has loaded, in the order of its targets (Batch::targets: -1 is none). The head
// runs on those rows alone, a few hundred at a time. On an engine that plans, every row counts as a target.
std::vector<TargetScore> score_targets(Engine& engine, std::span<const int32_t> targets);

}  // namespace mixtape
