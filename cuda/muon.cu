// The passes of Muon that are no matrix products: each over one tensor, bound by memory. The direction takes the place
// of weights, and then of gradients, in the update of cuda/update.h.
#include "cuda/update.h"

namespace mixtape {
namespace cuda {
namespace {

struct DirectionStep {
  float gradient, momentum;
  bool nesterov;
  __device__ void operator()(float& direction, float g, float& m, float&) const {
    const float scaled = g * gradient;
    m = m * momentum + scaled;
    direction = nesterov ? scaled + momentum * m : m;
  }
};
struct DirectionRule {
  float momentum;
  bool nesterov;
  __device__ DirectionStep of(const StepState& state, const UpdateRange&) const {
    return {state.grad_factor, momentum, nesterov};
  }
};

struct FollowStep {
  float decay, rate;
  __device__ void operator()(float& w, float direction, float&, float&) const { w = w * decay - rate * direction; }
};
struct FollowRule {
  float factor;
  __device__ FollowStep of(const StepState& state, const UpdateRange& range) const {
    const double rate = double(state.learning_rate) * double(range.lr_factor);
    return {float(1 - rate * double(range.weight_decay)), float(rate * double(factor))};
  }
};

struct DivideBody {
  float* x;
  const float* root_mean_square;
  double root_of_count;
  __device__ void operator()(int64_t, int64_t i) const {
    x[i] *= float(1 / (double(*root_mean_square) * root_of_count));
  }
};

}  // namespace
}  // namespace cuda

void CudaOptimizer::muon_direction(const MuonDirection& a) {
  const Tensor table = cuda::room_for_ranges(backend_, a.n_ranges);
  if (backend_.planning() || a.n_ranges == 0) return;
  cuda::update(backend_, table,
               {.state = a.state, .weights = a.direction, .gradients = a.gradients, .m = a.m, .seed = a.seed}, a.ranges,
               a.n_ranges, cuda::DirectionRule{a.momentum, a.nesterov});
}

void CudaOptimizer::divide_by_norm(const DivideByNorm& a) {
  if (backend_.planning()) return;
  cuda::elementwise(
      backend_.runtime(), 1, a.x.count(),
      cuda::DivideBody{a.x.data<float>(), a.root_mean_square.data<float>(), std::sqrt(double(a.x.count()))});
}

void CudaOptimizer::follow(const Follow& a) {
  const Tensor table = cuda::room_for_ranges(backend_, a.n_ranges);
  if (backend_.planning() || a.n_ranges == 0) return;
  cuda::update(backend_, table,
               {.state = a.state, .weights = a.weights, .master = a.master, .gradients = a.direction, .seed = a.seed},
               a.ranges, a.n_ranges, cuda::FollowRule{a.factor});
}

}  // namespace mixtape
