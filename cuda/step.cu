// The step's counters, losses and fp16's scale, by one thread: core/step_state.h has the rules, for all devices.
#include "core/step_state.h"
#include "cuda/launch.h"

namespace mixtape {
namespace cuda {
namespace {

__global__ void finish_micro_batch_kernel(StepState* state, const float* mean) { next_micro_batch(*state, *mean); }
__global__ void finish_attempt_kernel(StepState* state, LossScaleRule rule) { finish_attempt(*state, rule); }

}  // namespace
}  // namespace cuda

void CudaOptimizer::finish_micro_batch(const FinishMicroBatch& a) {
  if (backend_.planning()) return;
  cuda::launch(backend_.runtime(), cuda::finish_micro_batch_kernel, dim3(1), dim3(1), 0, a.state, a.mean.data<float>());
}

void CudaOptimizer::finish_attempt(const FinishAttempt& a) {
  if (backend_.planning()) return;
  cuda::launch(backend_.runtime(), cuda::finish_attempt_kernel, dim3(1), dim3(1), 0, a.state, a.rule);
}

}  // namespace mixtape
