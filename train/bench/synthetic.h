// Benchmarks need no data: a step on a batch of random tokens costs what a step on text costs.
#pragma once

#include "train/config/config.h"
#include "train/engine.h"
#include "train/objective/batch.h"
#include "train/parallel/rank_grid.h"

namespace mixtape {

// A benchmark reads no data, saves nothing and samples nothing: makes the configuration one that check() accepts
// without them.
void leave_data_out(Config& config);

// What a step needs of an engine. Offloaded state is in a file of the current directory, unless the configuration says
// otherwise: a benchmark makes no run's directory.
EngineOptions synthetic_options(const Config& config, const RankGrid& grid = single_process());

// Throws ConfigError where the configuration shares out what one process has, which `command` would leave out of
// account; `remedy`: what to do.
void expect_nothing_shared(const Config& config, const std::string& command, const std::string& remedy);

// A batch of the objective's shape: full rows of one document each, with as many targets as a row can have. Drawn from
// Philox; the same every time.
GlobalBatch synthetic_batch(const Config& config);

}  // namespace mixtape
