// Times every operation alone, at the shapes of a configuration's model.
//
// Before each call everything that the operation may touch is dropped from the caches, so a share of the limit is a
// share of what memory delivers. Inside a step operations find part of their input in caches, and can be faster.
// On a GPU operations are timed by its clock, attention also as cuDNN does it, where that is built.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "train/bench/steady.h"
#include "train/bench/work.h"
#include "train/config/config.h"

namespace mixtape {

struct OperationsBenchOptions {
  int samples = 5;                // that must count, of each operation
  std::vector<std::string> only;  // names of operations; empty: all
  std::function<void(size_t done, size_t total, const std::string& operation)> progress;
};

struct OperationTiming {
  std::string operation, shape;
  bool backward = false;
  Work work;
  Timing timing;
};

struct OperationsBench {
  DType type = DType::f32;
  Limits limits;
  std::vector<OperationTiming> lines;
};

// Keys that only name data are ignored. Throws ConfigError where check() does, and for a name in `only` that is none.
OperationsBench bench_operations(ResolvedConfig config, const OperationsBenchOptions& options);

}  // namespace mixtape
