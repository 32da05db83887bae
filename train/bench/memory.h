// The bytes of a training run, three times: predicted by the dry run, counted by the arena, measured as the system sees
// them.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "train/config/config.h"
#include "train/step.h"

namespace mixtape {

// Settings under a name, such as "bf16" for precision.mode=bf16.
struct MemoryMode {
  std::string name;
  std::vector<std::string> settings;
};
// What this version can do, from most bytes a parameter to least; and what several processes can share out.
const std::vector<MemoryMode>& memory_modes();
const std::vector<MemoryMode>& sharing_modes();

struct MemoryBench {
  int64_t parameters = 0, tokens = 0;  // of a micro-batch
  // Of weights, masters, gradients and moments. Gradients that are fused into the update count as their largest bucket,
  // which `predicted` has only where it is there when most is in use; those that are summed bucket by bucket, as the
  // sums that are kept.
  int64_t state_bytes = 0, gradient_bytes = 0;
  MemoryPlan predicted;
  // Where it was run: one step and one validation. The first two are equal to `predicted`, or it throws Error.
  int64_t counted_peak = 0;
  CategoryBytes counted{};
  // Since before the arena was there: growth of anonymous resident memory, or of what is in use of a GPU's.
  std::optional<int64_t> measured;
};

// Plans a step of the configuration, of the first of `world` processes, and with `run` runs it on random tokens, for
// which there must be one. Keys that only name data are ignored, and the objective is one that the model's family can
// have. Throws ConfigError for what so many processes cannot do, and for what one of them has no part in.
MemoryBench bench_memory(ResolvedConfig config, bool run, int world = 1);

// Of this process, in bytes, without files and shared memory (RssAnon); 0 where the system does not say.
int64_t anonymous_bytes();

}  // namespace mixtape
