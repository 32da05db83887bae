// Times training steps of a configuration on synthetic tokens.
#pragma once

#include <functional>
#include <iosfwd>
#include <memory>
#include <string>
#include <vector>

#include "train/bench/profile.h"
#include "train/bench/steady.h"
#include "train/bench/work.h"
#include "train/config/config.h"

namespace mixtape {

struct TrainingBenchOptions {
  int steps = 5;         // that must count
  bool profile = false;  // also run steps with every operation timed
};

// One line of a profile: the time of one step in all calls of one operation.
struct ProfileLine {
  std::string name, pass;  // pass: forward, backward or step
  double calls = 0, seconds = 0;
  Work work;
};

struct TrainingBench {
  int64_t parameters = 0, tokens = 0;  // tokens of a step
  double flops = 0;                    // of a step, by the formula of `mixtape plan`
  double published_flops = 0;          // of a step, as published figures count; 0: unknown (peaks.h)
  double peak_flops = 0;               // of the device, as its maker says; 0: unknown
  Timing step;
  Limits limits;
  int64_t arena_bytes = 0, peak_resident_bytes = 0, resident_before_bytes = 0;
  std::vector<ProfileLine> profile;  // slowest first; its seconds add up to profiled_step_seconds
  double profiled_step_seconds = 0;
  std::string trace;

  double tokens_per_second() const { return double(tokens) / step.median; }
  double share_of_fma() const { return flops / step.median / limits.fma; }
  // Model FLOP utilisation: published_flops a second / peak_flops; 0: unknown.
  double mfu() const { return peak_flops > 0 ? published_flops / step.median / peak_flops : 0; }
};

// Keys that only name data are ignored. Throws ConfigError where check() does.
TrainingBench bench_training(ResolvedConfig config, const TrainingBenchOptions& options);

// Takes turns with another program: says what it is when it is ready, then for each line of `in`, a number of steps,
// runs them and says how long one took. Ends with `in`.
struct TrainingTurns {
  std::function<void(const TrainingBench& b)> ready;  // all but step, limits and profile
  std::function<void(double seconds_per_step, int64_t peak_resident_bytes)> done;
};
void take_turns(ResolvedConfig config, std::istream& in, const TrainingTurns& turns);

// Of this process, in bytes: VmHWM and VmRSS; 0 where the system does not say.
int64_t peak_resident_bytes();
int64_t resident_bytes();

}  // namespace mixtape
