// One step of training: gradients of a global batch, their norm, the update.
#pragma once

#include "train/engine.h"
#include "train/objective/batch.h"
#include "train/optim/optimizer.h"

namespace mixtape {

struct StepResult {
  double loss = 0;            // mean over the targets of the global batch, nats
  double grad_norm = 0;       // before clipping
  double loss_scale = 1;      // that the step had
  bool finite = true;         // false: weights, moments and counters of updates are as before
  bool scale_adapts = false;  // not finite, but fp16's scale falls or bears it: how it finds its level
};

class TrainingStep {
 public:
  TrainingStep(Engine& engine, const Config& config);

  // One attempt. `micro_batches` are this process's; counters come from and go to engine.state(). The device is asked
  // for the whole step before the host waits for it, once, to read the result.
  StepResult run(const GlobalBatch& batch, double learning_rate);

  const Optimizer& optimizer() const { return optimizer_; }
  bool scales_loss() const { return scale_rule_.active; }

 private:
  void begin(const GlobalBatch& batch, double learning_rate);
  void update();
  StepResult result();

  Engine& engine_;
  uint64_t seed_;
  LossScaleRule scale_rule_;
  Optimizer optimizer_;
};

// The memory of a run: what the dry run of a step, a validation and a sample needs.
struct MemoryPlan {
  int64_t peak = 0;  // bytes of the arena
  CategoryBytes at_peak{};
  int64_t nodes = 0;  // of one micro-batch's tape
};
MemoryPlan plan_training(const EngineOptions& options, const Config& config);

// What `train` needs of an engine.
EngineOptions training_options(const Config& config);

}  // namespace mixtape
