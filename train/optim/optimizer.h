// The update rule that a configuration asks for, over a model's parameters.
#pragma once

#include <string_view>
#include <vector>

#include "core/parameters.h"
#include "train/config/config.h"

namespace mixtape {

// What the rule keeps of earlier gradients, and in which format.
Moments moments_of(const Config& config);

class Optimizer {
 public:
  Optimizer(const Config& config, Parameters& parameters, Backend& backend);

  // The norm of the gradients, whether all are finite, and the factor that clips them. `state` is on the device.
  void measure_gradients(StepState* state) const;
  // One update, unless the gradients were not finite.
  void update(StepState* state) const;

  std::string_view name() const { return name_of(config_.name); }

 private:
  void adamw_update(StepState* state) const;
  void sgd_update(StepState* state) const;
  void lion_update(StepState* state) const;
  void adafactor_update(StepState* state) const;

  OptimizerConfig config_;
  float clip_;
  uint64_t seed_;  // of stochastic rounding
  Parameters& parameters_;
  Backend& backend_;
  std::vector<UpdateTensor> tensors_;
  std::vector<UpdateRange> ranges_;
  std::vector<UpdateRange> own_ranges_;  // of the shard, counted from where it begins
  Tensor scales_;                        // of the tensors, where steps are relative to them
};

}  // namespace mixtape
