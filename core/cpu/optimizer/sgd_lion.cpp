// SGD with momentum and Lion: one pass over weights, gradients and a moment, bound by memory.
#include "core/cpu/targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/cpu/optimizer/sgd_lion.cpp"
#include "hwy/foreach_target.h"
//
#include "core/cpu/backend.h"
#include "core/cpu/optimizer/blocks-inl.h"

HWY_BEFORE_NAMESPACE();
namespace mixtape::HWY_NAMESPACE {
namespace {

struct SgdRule {
  float factor, penalty, momentum, step;
  bool nesterov;

  void operator()(const Block& b) const {
    const Vec scale = set(factor), decay = set(penalty), keep = set(momentum), rate = set(step);
    each_vector(b.n, [&](auto w, int64_t i) HWY_ATTR {
      const Vec old = w.load(b.w + i);
      const Vec g = hn::MulAdd(old, decay, hn::Mul(w.load(b.g + i), scale));
      Vec u = g;
      if (b.m) {
        const Vec m = hn::MulAdd(w.load(b.m + i), keep, g);
        w.store(m, b.m + i);
        u = nesterov ? hn::MulAdd(m, keep, g) : m;
      }
      w.store(hn::NegMulAdd(rate, u, old), b.w + i);
    });
  }
};

struct LionRule {
  float factor, beta1, add1, beta2, add2, decay, step;

  void operator()(const Block& b) const {
    const FloatTag d;
    const Vec scale = set(factor), keep1 = set(beta1), new1 = set(add1), keep2 = set(beta2), new2 = set(add2);
    const Vec shrink = set(decay), rate = set(step);
    each_vector(b.n, [&](auto w, int64_t i) HWY_ATTR {
      const Vec g = hn::Mul(w.load(b.g + i), scale), m = w.load(b.m + i);
      const Vec mix = hn::MulAdd(g, new1, hn::Mul(m, keep1));
      const Vec u = hn::IfThenZeroElse(hn::Eq(mix, hn::Zero(d)), hn::CopySign(rate, mix));
      w.store(hn::MulAdd(g, new2, hn::Mul(m, keep2)), b.m + i);
      w.store(hn::Sub(hn::Mul(w.load(b.w + i), shrink), u), b.w + i);
    });
  }
};

}  // namespace

void sgd(const Sgd& a) {
  const FlatBuffers buffers{a.weights, a.master, a.gradients, a.m, {}, rounding_key(a.seed, a.state->attempts)};
  update_blocks(buffers, a.ranges, a.n_ranges, [&](const UpdateRange& r) {
    return SgdRule{.factor = a.state->grad_factor,
                   .penalty = r.weight_decay,
                   .momentum = a.momentum,
                   .step = a.state->learning_rate * r.lr_factor,
                   .nesterov = a.nesterov};
  });
}

void lion(const Lion& a) {
  const FlatBuffers buffers{a.weights, a.master, a.gradients, a.m, {}, rounding_key(a.seed, a.state->attempts)};
  update_blocks(buffers, a.ranges, a.n_ranges, [&](const UpdateRange& r) {
    const double rate = double(a.state->learning_rate) * r.lr_factor;
    return LionRule{.factor = a.state->grad_factor,
                    .beta1 = a.beta1,
                    .add1 = float(1 - double(a.beta1)),
                    .beta2 = a.beta2,
                    .add2 = float(1 - double(a.beta2)),
                    .decay = float(1 - rate * r.weight_decay),
                    .step = float(rate)};
  });
}

}  // namespace mixtape::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mixtape {

HWY_EXPORT(sgd);
HWY_EXPORT(lion);

void CpuOptimizer::sgd(const Sgd& a) {
  if (!backend_.planning() && a.state->finite) HWY_DYNAMIC_DISPATCH(sgd)(a);
}

void CpuOptimizer::lion(const Lion& a) {
  if (!backend_.planning() && a.state->finite) HWY_DYNAMIC_DISPATCH(lion)(a);
}

}  // namespace mixtape
#endif
