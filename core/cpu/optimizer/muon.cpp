// The passes of Muon that are no matrix products: each over one tensor, bound by memory.
#include "core/cpu/targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/cpu/optimizer/muon.cpp"
#include "hwy/foreach_target.h"
//
#include <cmath>

#include "core/cpu/backend.h"
#include "core/cpu/optimizer/blocks-inl.h"

HWY_BEFORE_NAMESPACE();
namespace mixtape::HWY_NAMESPACE {
namespace {

// The direction takes the place of weights.
struct DirectionRule {
  float factor, momentum;
  bool nesterov;

  void operator()(const Block& b) const {
    const Vec scale = set(factor), keep = set(momentum);
    each_vector(b.n, [&](auto w, int64_t i) HWY_ATTR {
      const Vec g = hn::Mul(w.load(b.g + i), scale);
      const Vec m = hn::MulAdd(w.load(b.m + i), keep, g);
      w.store(m, b.m + i);
      w.store(nesterov ? hn::MulAdd(m, keep, g) : m, b.w + i);
    });
  }
};

// And the place of gradients.
struct FollowRule {
  float decay, step;

  void operator()(const Block& b) const {
    const Vec shrink = set(decay), rate = set(step);
    each_vector(b.n, [&](auto w, int64_t i) HWY_ATTR {
      w.store(hn::NegMulAdd(rate, w.load(b.g + i), hn::Mul(w.load(b.w + i), shrink)), b.w + i);
    });
  }
};

}  // namespace

void muon_direction(const MuonDirection& a) {
  const FlatBuffers buffers{a.direction, {}, a.gradients, a.m, {}, rounding_key(a.seed, a.state->attempts)};
  update_blocks(buffers, a.ranges, a.n_ranges, [&](const UpdateRange&) {
    return DirectionRule{a.state->grad_factor, a.momentum, a.nesterov};
  });
}

void follow(const Follow& a) {
  const FlatBuffers buffers{a.weights, a.master, a.direction, {}, {}, rounding_key(a.seed, a.state->attempts)};
  update_blocks(buffers, a.ranges, a.n_ranges, [&](const UpdateRange& r) {
    const double rate = double(a.state->learning_rate) * r.lr_factor;
    return FollowRule{float(1 - rate * r.weight_decay), float(rate * a.factor)};
  });
}

void multiply(float* x, int64_t n, float factor) {
  parallel_for(n, 16384, [&](int64_t begin, int64_t end) HWY_ATTR {
    const Vec by = set(factor);
    each_vector(end - begin,
                [&](auto w, int64_t i) HWY_ATTR { w.store(hn::Mul(w.load(x + begin + i), by), x + begin + i); });
  });
}

}  // namespace mixtape::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mixtape {

HWY_EXPORT(muon_direction);
HWY_EXPORT(follow);
HWY_EXPORT(multiply);

void CpuOptimizer::muon_direction(const MuonDirection& a) {
  if (!backend_.planning() && a.state->finite) HWY_DYNAMIC_DISPATCH(muon_direction)(a);
}

void CpuOptimizer::divide_by_norm(const DivideByNorm& a) {
  if (backend_.planning()) return;
  const double norm = double(*a.root_mean_square.data<float>()) * std::sqrt(double(a.x.count()));
  HWY_DYNAMIC_DISPATCH(multiply)(a.x.data<float>(), a.x.count(), float(1 / norm));
}

void CpuOptimizer::follow(const Follow& a) {
  if (!backend_.planning() && a.state->finite) HWY_DYNAMIC_DISPATCH(follow)(a);
}

}  // namespace mixtape
#endif
