// What fits into a given memory: the settings with which a model does, and the largest model that does.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "train/bench/traffic.h"
#include "train/config/config.h"

namespace mixtape {

// "24GiB", "24 GB", "800MiB", "1e9": bytes. Throws ConfigError naming `what` for anything else.
int64_t bytes_of(const std::string& text, const std::string& what);

struct FittingOption {
  std::string settings;  // beside the configuration's own
  int64_t micro_batch_size = 0;
  int64_t peak_bytes = 0;     // of the arena
  int64_t offloaded = 0;      // bytes of state outside of the device's memory, through which all of it goes each step
  double extra_flops = 0;     // 1/3 where forward is computed twice
  double exchanged = 0;       // bytes that a process sends in a step
  double step_seconds = 0;    // where speeds are known
  bool same_training = true;  // false: other rounding or another update rule
};

// Of one process, or each of several.
struct Room {
  int64_t bytes = 0;
  int world = 1;
  Speeds speeds = {};
};

// For each way to store states and activations, and of several processes to share out states and layers, the largest
// micro-batch that fits and divides the global batch; forward twice only where that makes it larger. The fastest first:
// what is not offloaded, then by the estimate of a step, or where speeds are not known the least extra arithmetic, then
// the least exchange; then the largest micro-batch; of these what changes training last.
std::vector<FittingOption> options_that_fit(const Config& config, const Room& room);

struct FittingModel {
  std::string preset;
  int64_t parameters = 0;
  FittingOption option;  // the first of its options
};
// Of all presets with the axes of this model (its family of models), the largest that fits in some way.
std::optional<FittingModel> largest_that_fits(const Config& config, const Room& room);

}  // namespace mixtape
