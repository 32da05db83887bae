// Benchmarks need no data: a step on a batch of random tokens costs what a step on text costs.
#pragma once

#include "train/config/config.h"
#include "train/objective/batch.h"

namespace mixtape {

// A benchmark reads no data, saves nothing and samples nothing: makes the configuration one that check() accepts
// without them.
void leave_data_out(Config& config);

// Every position has a target, each row is one document. Drawn from Philox by (seed, position); the same every time.
GlobalBatch synthetic_batch(const Config& config);

}  // namespace mixtape
