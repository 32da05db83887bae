// A batch of random tokens: a step on it costs what a step on text costs, and needs no data.
#pragma once

#include "train/config/config.h"
#include "train/objective/batch.h"

namespace mixtape {

// Every position has a target, each row is one document. Drawn from Philox by (seed, position); the same every time.
GlobalBatch synthetic_batch(const Config& config);

}  // namespace mixtape
