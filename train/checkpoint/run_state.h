// What a run knows besides its tensors: everything that a bit-exact resume needs.
//
// Randomness and data order are functions of the seed and of counters (design: counter-based), so there is no generator
// and no loader state to save.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

namespace mixtape {

struct LossScalerState {
  double scale = 1;
  int64_t growth_tracker = 0;   // steps without overflow since the scale last changed
  int64_t hysteresis_left = 0;  // overflows still tolerated before the scale shrinks
  int64_t overflows = 0;        // in all
  friend bool operator==(const LossScalerState&, const LossScalerState&) = default;
};

// How far one source of a mixture was read.
struct SourceCounters {
  std::string name;
  int64_t samples = 0;
  int64_t tokens = 0;
  friend bool operator==(const SourceCounters&, const SourceCounters&) = default;
};

struct RunState {
  uint64_t seed = 0;
  int64_t attempts = 0;           // steps tried: data order and random numbers follow these
  int64_t updates = 0;            // steps applied: learning rate, bias correction and intervals follow these
  int64_t samples = 0;            // sequences consumed
  int64_t tokens = 0;             // tokens consumed
  int64_t consecutive_skips = 0;  // towards train.on_nonfinite.limit
  int64_t skipped_steps = 0;      // in all
  double seconds = 0;             // time trained, over all parts of the run
  LossScalerState loss_scaler;
  double best_validation_loss = std::numeric_limits<double>::infinity();
  int64_t best_step = -1;  // the update of best_validation_loss; -1: none yet
  double last_validation_loss = std::numeric_limits<double>::quiet_NaN();
  std::vector<SourceCounters> sources;
  std::vector<double> loss_history;  // what a moving average or a rollback rule looks back on, oldest first
  std::string data_fingerprint;      // of the data that `samples` counts in
  std::string config;                // the resolved YAML, as text
  std::string matmul_table;          // the choice of library per shape, as text; empty in strict mode
  std::string written_by;            // version and build of the program

  friend bool operator==(const RunState&, const RunState&) = default;
};

// JSON, one key a line. Doubles come back with the same bits: finite ones in the shortest decimal form that does so,
// infinities and NaN as the texts "inf", "-inf" and "nan".
std::string to_json(const RunState& state);
// Throws CheckpointError, naming `what` and the key, if the text is not such a state: a key is missing or unknown, has
// another type, or a counter is negative.
RunState run_state_from_json(std::string_view text, const std::string& what);

}  // namespace mixtape
