// What ranks exchange in a step: numbers of targets before it, gradients and losses after backward, and after the
// update with parallel.zero_stage 1 the weights. docs/parallelism.md.
//
//   const StepCounts counts = reducer.begin(batch);
//   for (i ...) { if (reducer.starts_sum(i)) engine.begin_sum(); ...backward...; reducer.after_micro_batch(i); }
//   reducer.sum_over_ranks();
//   ...norm, update...
//   reducer.share_weights();
//
// With one rank, and in fast mode, all of it is nothing but additions in order.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "core/communicator.h"
#include "core/parameters.h"
#include "train/config/config.h"
#include "train/objective/batch.h"
#include "train/parallel/lane_fold.h"

namespace mixtape {

// How optimizer state is shared out.
Sharding sharding_of(const Config& config, const Communicator& ranks);

struct StepCounts {
  int64_t tokens = 0, targets = 0;  // of all ranks
};

class GradientReducer {
 public:
  GradientReducer(const Config& config, Parameters& parameters, Backend& backend, Communicator& ranks);

  StepCounts begin(const GlobalBatch& batch);
  // Whether the gradients of this rank's i-th micro-batch overwrite those before.
  bool starts_sum(int64_t i) const { return lanes_ ? lanes_->starts_lane(i) : i == 0; }
  void after_micro_batch(int64_t i);
  // The gradients of the whole step, on every rank.
  void sum_over_ranks();
  // The sum of the losses of all micro-batches of the step, in their order; `losses`: those of this rank's.
  double total(std::span<const double> losses);
  // After the update: the weights that other ranks have updated.
  void share_weights();

  Communicator& ranks() const { return ranks_; }

 private:
  void sum_in_order(std::span<float> gradients);
  void fill_with_nothing();

  Parameters& parameters_;
  Backend& backend_;
  Communicator& ranks_;
  std::optional<LaneFold> lanes_;  // in strict mode
  int64_t micro_batches_ = 0, first_ = 0, here_ = 0;
  std::vector<int64_t> loss_bits_, part_counts_, part_bytes_;
  std::vector<int64_t> shard_bytes_;  // of the weights, by rank
};

}  // namespace mixtape
