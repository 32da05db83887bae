// Which source each sample comes from: the blend rule of Megatron-LM, as a function of the sample's index.
//
//   source(i) = argmax_j ( w_j * max(i, 1) - count_j(i) ),   ties to the lowest j
//
// where count_j(i) is how many of the samples before i came from source j. There is no randomness: after any number of
// samples each source's share is within one sample or so of its weight. A source with a limit that has given all its
// samples drops out; the rule then starts afresh among the others, with their weights scaled to sum to 1. It also
// starts afresh where a stage with other weights begins.
//
// The state after each block of samples is kept as it is reached, so a position is cheap in any order: the first visit
// to sample 10 million takes some 50 ms, later ones microseconds. Thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

namespace mixtape {

struct MixtureSource {
  std::string name;
  double weight = 1;                             // > 0, of any scale; 0 leaves the source out
  std::optional<uint64_t> limit = std::nullopt;  // most samples that it can give
};

// From `first_sample` on the sources have these weights, one each; 0 leaves a source out.
struct MixtureStage {
  uint64_t first_sample = 0;
  std::vector<double> weights;
};

class Mixture {
 public:
  struct Position {
    int source = 0;
    uint64_t ordinal = 0;  // how many samples of this source came before
  };

  // Begins with the sources' own weights; `stages` are those that follow, their first samples ascending. Throws
  // ConfigError when no weight of a stage is positive, or one is negative or not finite.
  explicit Mixture(std::vector<MixtureSource> sources, std::vector<MixtureStage> stages = {});

  // Throws DataError when `sample` >= size(): which sources are exhausted, and when.
  Position position(uint64_t sample) const;
  // Samples of each source among the first `samples`.
  std::vector<uint64_t> counts(uint64_t samples) const;
  // Samples until all sources that then have a weight are exhausted; none if that never is.
  std::optional<uint64_t> size() const { return size_; }
  const std::vector<MixtureSource>& sources() const { return sources_; }

 private:
  // Everything the rule needs to go on from a sample.
  struct State {
    uint64_t sample = 0;
    size_t stage = 0;
    uint64_t phase_start = 0;            // sample at which the weights last changed
    std::vector<uint64_t> counts;        // of each source
    std::vector<uint64_t> phase_counts;  // at phase_start
    std::vector<double> weights;         // sum to 1; 0 = dropped out
  };
  struct Block {
    State begin;
    std::vector<uint32_t> sources;   // of each sample of the block
    std::vector<uint32_t> ordinals;  // relative to begin.counts
  };

  void check_weights() const;
  void start_phase(State& state) const;
  int step(State& state) const;  // the source of the next sample; -1 if none is left
  std::optional<uint64_t> end_from(State state) const;
  std::shared_ptr<const Block> block(uint64_t index) const;
  void check(uint64_t sample) const;

  std::vector<MixtureSource> sources_;
  std::vector<MixtureStage> stages_;  // the first from sample 0
  std::optional<uint64_t> size_;
  mutable std::mutex mutex_;
  mutable std::vector<State> states_;  // at the begin of each block visited so far
  mutable std::shared_ptr<const Block> latest_;
  mutable uint64_t latest_index_ = 0;
};

}  // namespace mixtape
