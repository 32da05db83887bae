// One step of training: gradients of a global batch, their norm, the update.
#pragma once

#include <memory>
#include <optional>

#include "train/engine.h"
#include "train/objective/batch.h"
#include "train/optim/optimizer.h"
#include "train/parallel/gradient_reducer.h"
#include "train/parallel/rank_grid.h"
#include "train/parallel/weight_gatherer.h"

namespace mixtape {

struct StepResult {
  double loss = 0;        // mean over the targets of the global batch, nats
  int64_t n_tokens = 0;   // of the global batch
  double grad_norm = 0;   // before clipping
  double loss_scale = 1;  // that the step had
  // False: weights, moments and counters of updates are as before. Of fused gradients those that were complete before
  // the first that was not finite are applied: only a checkpoint has the weights of before.
  bool finite = true;
  bool scale_adapts = false;  // not finite, but fp16's scale falls or bears it: how it finds its level
};

class TrainingStep : private BucketListener {
 public:
  TrainingStep(Engine& engine, const Config& config, const RankGrid& ranks = single_process());
  ~TrainingStep() override;
  TrainingStep(const TrainingStep&) = delete;
  TrainingStep& operator=(const TrainingStep&) = delete;

  // One attempt. `micro_batches` are this process's; counters come from and go to engine.state(). The device is asked
  // for the whole step before the host waits for it, once, to read the result.
  StepResult run(const GlobalBatch& batch, double learning_rate);

  const Optimizer& optimizer() const { return optimizer_; }
  bool scales_loss() const { return scale_rule_.active; }
  const RankGrid& grid() const { return grid_; }

 private:
  void watch_exchanges();
  bool measures_first() const;
  // Of fused gradients: a forward and backward for their norm alone. False if they are not finite.
  bool measure(const GlobalBatch& batch);
  StepCounts begin(const GlobalBatch& batch, double learning_rate);
  void run_micro_batch(const GlobalBatch& batch, int64_t i);
  double take_loss(int64_t i);
  void update();
  // Of gradients that are fused into the update, in the middle of backward.
  void bucket_complete(int bucket) override;
  StepResult end(const StepCounts& counts);

  // Those that have other micro-batches of the step.
  Communicator& ranks() const { return grid_.data(); }

  Engine& engine_;
  RankGrid grid_;
  uint64_t seed_;
  LossScaleRule scale_rule_;
  bool fused_;  // gradients are applied in backward
  bool measuring_ = false;
  uint64_t exact_updates_;  // so many at first are clipped by their own norm, though gradients are fused
  Optimizer optimizer_;
  std::unique_ptr<Exchange> device_;  // of several GPUs
  GradientReducer reducer_;
  std::optional<WeightGatherer> gatherer_;  // with parallel.zero_stage 3
  Batch nothing_;                           // for a rank whose turn it is when no micro-batch is left
  std::vector<double> losses_;              // of this rank's micro-batches
};

// The memory of a run: what the dry run of a step, a validation and a sample needs.
struct MemoryPlan {
  int64_t peak = 0;  // bytes of the arena
  CategoryBytes at_peak{};
  int64_t offloaded = 0;  // bytes outside of it: of the optimizer's state and of activations
  int64_t offloaded_activations = 0;
  int64_t nodes = 0;  // of one micro-batch's tape
  EngineMemory memory() const { return {peak, offloaded_activations}; }
};
MemoryPlan plan_training(const EngineOptions& options, const Config& config, const RankGrid& ranks = single_process());

// What `train` needs of an engine.
EngineOptions training_options(const Config& config, const RankGrid& ranks = single_process());

}  // namespace mixtape
