// What the processes of a run exchange in a step, and how long a step with that takes: arithmetic, for plans.
// docs/parallelism.md, "What is exchanged".
#pragma once

#include "core/model/transformer.h"
#include "train/config/config.h"
#include "train/engine.h"

namespace mixtape {

// Bytes that a process sends, and receives, in a step.
struct StepTraffic {
  double gradients = 0, weights = 0, layers = 0;  // layers: of what ranks share out of each
  double rounds = 1;                              // micro-batches of a process
  int64_t stage = 0;
  double bytes() const { return gradients + weights + layers; }
};
// `model`: of `options`, which are those of one of `world` processes.
StepTraffic step_traffic(const Config& config, const EngineOptions& options, const Transformer& model, int world);

// What a process sustains; 0: unknown.
struct Speeds {
  double flops = 0, bytes = 0;  // a second; bytes: that it sends to others
  bool known() const { return flops > 0 && bytes > 0; }
};

// Of a step of which computing takes `compute` seconds.
double step_seconds(const StepTraffic& traffic, double compute, double bytes_per_second);

}  // namespace mixtape
