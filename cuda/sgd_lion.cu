// SGD with momentum and Lion, over flat buffers: gradient read, weight and one moment read and written, 20 bytes a
// parameter in float32, some five FLOPs; bound by memory.
#include "cuda/update.h"

namespace mixtape {
namespace cuda {
namespace {

struct SgdStep {
  float gradient, penalty, momentum, rate;
  bool nesterov;

  __device__ void operator()(float& w, float g, float& m, float&) const {
    const float scaled = g * gradient + penalty * w;
    m = m * momentum + scaled;  // without momentum: the gradient itself
    w -= rate * (nesterov ? scaled + momentum * m : m);
  }
};
struct SgdRule {
  float momentum;
  bool nesterov;
  __device__ SgdStep of(const StepState& state, const UpdateRange& range) const {
    return {state.grad_factor, range.weight_decay, momentum, state.learning_rate * range.lr_factor, nesterov};
  }
};

struct LionStep {
  float gradient, beta1, add1, beta2, add2, decay, rate;

  __device__ void operator()(float& w, float g, float& m, float&) const {
    const float scaled = g * gradient, mix = m * beta1 + scaled * add1;
    m = m * beta2 + scaled * add2;
    w = w * decay - (mix == 0 ? 0.f : copysignf(rate, mix));
  }
};
struct LionRule {
  float beta1, beta2;
  __device__ LionStep of(const StepState& state, const UpdateRange& range) const {
    const double rate = double(state.learning_rate) * double(range.lr_factor);
    return {.gradient = state.grad_factor,
            .beta1 = beta1,
            .add1 = float(1 - double(beta1)),
            .beta2 = beta2,
            .add2 = float(1 - double(beta2)),
            .decay = float(1 - rate * double(range.weight_decay)),
            .rate = float(rate)};
  }
};

template <class Arguments>
UpdateBuffers buffers_of(const Arguments& a) {
  return {
      .state = a.state, .weights = a.weights, .master = a.master, .gradients = a.gradients, .m = a.m, .seed = a.seed};
}

}  // namespace
}  // namespace cuda

void CudaOptimizer::sgd(const Sgd& a) {
  const Tensor table = cuda::room_for_ranges(backend_, a.n_ranges);
  if (backend_.planning() || a.n_ranges == 0) return;
  cuda::update(backend_, table, cuda::buffers_of(a), a.ranges, a.n_ranges, cuda::SgdRule{a.momentum, a.nesterov});
}

void CudaOptimizer::lion(const Lion& a) {
  const Tensor table = cuda::room_for_ranges(backend_, a.n_ranges);
  if (backend_.planning() || a.n_ranges == 0) return;
  cuda::update(backend_, table, cuda::buffers_of(a), a.ranges, a.n_ranges, cuda::LionRule{a.beta1, a.beta2});
}

}  // namespace mixtape
