// The dynamic loss scale of fp16, as a configuration asks for it.
//
// The loss is multiplied by the scale before backward, so that small gradients survive fp16's range. A step whose
// gradients overflow changes nothing but the scale and its counters. Scale and counters are in the StepState, and the
// device follows the rule there (core/step_state.h).
#pragma once

#include "core/step_state.h"
#include "train/config/precision.h"

namespace mixtape {

LossScaleRule loss_scale_rule(const PrecisionConfig& config);
// What a run begins with.
void start_loss_scale(StepState& state, const PrecisionConfig& config);

}  // namespace mixtape
