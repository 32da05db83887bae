// The dynamic loss scale of fp16.
//
// The loss is multiplied by `scale` before backward, so that small gradients survive fp16's range. A step whose
// gradients overflow changes nothing but the scale and its counters. The rule is PyTorch's GradScaler by default;
// hysteresis (overflows that are borne before the scale falls) follows Megatron or Apex, and `min` bounds it below.
#pragma once

#include "train/config/precision.h"

namespace mixtape {

class LossScaler {
 public:
  explicit LossScaler(const LossScaleConfig& config);

  float scale() const { return scale_; }
  // After a step: finite says whether all gradients were. Returns whether an overflow was answered: borne, or by a
  // lower scale. An overflow at the least scale, or below 1, where no scale helps, is not.
  bool update(bool finite);

  // For checkpoints.
  int64_t growth_tracker() const { return growth_tracker_; }
  int64_t hysteresis_left() const { return hysteresis_left_; }
  int64_t overflows() const { return overflows_; }
  void restore(float scale, int64_t growth_tracker, int64_t hysteresis_left, int64_t overflows);

 private:
  LossScaleConfig config_;
  float scale_;
  int64_t growth_tracker_ = 0;
  int64_t hysteresis_left_;
  int64_t overflows_ = 0;
};

}  // namespace mixtape
