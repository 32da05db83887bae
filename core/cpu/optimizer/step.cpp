// The step's counters, losses and fp16's scale: core/step_state.h has the rules.
#include "core/cpu/backend.h"

namespace mixtape {

void CpuOptimizer::finish_micro_batch(const FinishMicroBatch& a) {
  if (!backend_.planning()) next_micro_batch(*a.state, *a.mean.data<float>());
}

void CpuOptimizer::finish_attempt(const FinishAttempt& a) {
  if (!backend_.planning()) mixtape::finish_attempt(*a.state, a.rule);
}

}  // namespace mixtape
