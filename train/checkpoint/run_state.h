// What a run knows besides its tensors: everything that a bit-exact resume needs.
//
// Randomness and data order are functions of the seed and of counters (design: counter-based), so there is no generator
// and no loader state to save.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <vector>

#include "core/base/fields.h"

namespace mixtape {

struct LossScalerState {
  double scale = 1;
  int64_t growth_tracker = 0;
  int64_t hysteresis_left = 0;
  int64_t overflows = 0;
  friend bool operator==(const LossScalerState&, const LossScalerState&) = default;
};

constexpr auto fields(std::type_identity<LossScalerState>) {
  using C = LossScalerState;
  return std::tuple{
      field("scale", &C::scale, "the factor of the loss", above(0)),
      field("growth_tracker", &C::growth_tracker, "steps without overflow since the scale changed", at_least(0)),
      field("hysteresis_left", &C::hysteresis_left, "overflows still tolerated before it shrinks", at_least(0)),
      field("overflows", &C::overflows, "overflows in all", at_least(0)),
  };
}

// How far one source of a mixture was read.
struct SourceCounters {
  std::string name;
  int64_t samples = 0;
  int64_t tokens = 0;
  friend bool operator==(const SourceCounters&, const SourceCounters&) = default;
};

constexpr auto fields(std::type_identity<SourceCounters>) {
  using C = SourceCounters;
  return std::tuple{
      field("name", &C::name, "as in data.sources"),
      field("samples", &C::samples, "sequences taken from it", at_least(0)),
      field("tokens", &C::tokens, "tokens taken from it", at_least(0)),
  };
}

struct RunState {
  std::string written_by;
  uint64_t seed = 0;
  int64_t attempts = 0;
  int64_t updates = 0;
  int64_t samples = 0;
  int64_t tokens = 0;
  int64_t consecutive_skips = 0;
  int64_t skipped_steps = 0;
  double seconds = 0;
  LossScalerState loss_scaler;
  std::optional<double> grad_norm;
  double best_validation_loss = std::numeric_limits<double>::infinity();
  std::optional<int64_t> best_checkpoint;
  double best_checkpoint_loss = std::numeric_limits<double>::infinity();
  std::optional<double> last_validation_loss;
  std::vector<SourceCounters> sources;
  std::vector<double> loss_history;
  std::string data_fingerprint;
  std::string matmul_table;
  std::string config;
  friend bool operator==(const RunState&, const RunState&) = default;
};

constexpr auto fields(std::type_identity<RunState>) {
  using C = RunState;
  return std::tuple{
      field("written_by", &C::written_by, "version and build of the program"),
      field("seed", &C::seed, "the run's seed"),
      field("attempts", &C::attempts, "steps tried: data order and random numbers follow these", at_least(0)),
      field("updates", &C::updates, "steps applied: learning rate, bias correction and intervals follow", at_least(0)),
      field("samples", &C::samples, "sequences consumed", at_least(0)),
      field("tokens", &C::tokens, "tokens consumed", at_least(0)),
      field("consecutive_skips", &C::consecutive_skips, "towards train.on_nonfinite.limit", at_least(0)),
      field("skipped_steps", &C::skipped_steps, "skipped steps in all", at_least(0)),
      field("seconds", &C::seconds, "time trained, over all parts of the run", at_least(0)),
      field("loss_scaler", &C::loss_scaler, "fp16's dynamic loss scale"),
      field("grad_norm", &C::grad_norm, "of the last step: fused gradients are clipped by it; null: not known"),
      field("best_validation_loss", &C::best_validation_loss, "the least validation loss so far"),
      field("best_checkpoint", &C::best_checkpoint, "the step, among those saved, of least validation loss; null: none",
            at_least(0)),
      field("best_checkpoint_loss", &C::best_checkpoint_loss, "its validation loss"),
      field("last_validation_loss", &C::last_validation_loss, "the newest; null: none yet"),
      field("sources", &C::sources, "how far each source was read"),
      field("loss_history", &C::loss_history, "what averages and the rollback rule look back on, oldest first"),
      field("data_fingerprint", &C::data_fingerprint, "of the data that `samples` counts in"),
      field("matmul_table", &C::matmul_table, "the choice of library per shape, as text; empty in strict mode"),
      field("config", &C::config, "the resolved configuration, as YAML"),
  };
}

// JSON, one key a line. Doubles come back with the same bits.
std::string to_json(const RunState& state);
// CheckpointError, naming `what` and the key, if the text is not such a state: a key is missing or unknown, or a value
// has another type or is out of range.
RunState run_state_from_json(std::string_view text, const std::string& what);

}  // namespace mixtape
