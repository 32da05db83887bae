// AdamW and Adam: one pass over weights, gradients and both moments, bound by memory.
#include "core/cpu/targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/cpu/optimizer/adamw.cpp"
#include "hwy/foreach_target.h"
//
#include <cmath>

#include "core/cpu/backend.h"
#include "core/cpu/optimizer/blocks-inl.h"

#ifndef MIXTAPE_CPU_ADAMW_ONCE
#define MIXTAPE_CPU_ADAMW_ONCE
namespace mixtape {
namespace {

// What is the same for all elements of a range, computed once in double precision.
struct AdamWFactors {
  float keep_m, add_m, keep_v, add_v;
  float gradient;           // clip factor / loss_scale
  float decay;              // 1 - lr * weight_decay, if decoupled
  float penalty;            // weight_decay, if it is a part of the gradient
  float step;               // lr * scale / (1 - beta1^t)
  float second_correction;  // 1 / sqrt(1 - beta2^t)
  float eps;
};

AdamWFactors adamw_factors(const AdamW& a, const UpdateRange& range) {
  const double t = double(a.state->updates) + 1;
  const double lr = double(a.state->learning_rate) * range.lr_factor;
  const double scale = a.scales ? a.scales.data<float>()[range.tensor] : 1;
  const auto correction = [&](float beta) { return a.bias_correction ? 1 - std::pow(double(beta), t) : 1; };
  return {.keep_m = a.beta1,
          .add_m = float(1 - double(a.beta1)),
          .keep_v = a.beta2,
          .add_v = float(1 - double(a.beta2)),
          .gradient = a.state->grad_factor,
          .decay = float(a.decoupled_decay ? 1 - lr * range.weight_decay : 1),
          .penalty = a.decoupled_decay ? 0 : range.weight_decay,
          .step = float(lr * scale / correction(a.beta1)),
          .second_correction = float(1 / std::sqrt(correction(a.beta2))),
          .eps = a.eps};
}

}  // namespace
}  // namespace mixtape
#endif

HWY_BEFORE_NAMESPACE();
namespace mixtape::HWY_NAMESPACE {
namespace {

struct AdamWRule {
  AdamWFactors f;

  void operator()(const Block& b) const {
    const Vec keep_m = set(f.keep_m), add_m = set(f.add_m), keep_v = set(f.keep_v), add_v = set(f.add_v);
    const Vec factor = set(f.gradient), decay = set(f.decay), step = set(f.step), eps = set(f.eps);
    const Vec correction = set(f.second_correction), penalty = set(f.penalty);
    each_vector(b.n, [&](auto w, int64_t i) HWY_ATTR {
      const Vec old = w.load(b.w + i);
      const Vec g = hn::MulAdd(old, penalty, hn::Mul(w.load(b.g + i), factor));
      const Vec m = hn::MulAdd(g, add_m, hn::Mul(w.load(b.m + i), keep_m));
      const Vec v = hn::MulAdd(hn::Mul(g, g), add_v, hn::Mul(w.load(b.v + i), keep_v));
      const Vec scale = hn::MulAdd(hn::Sqrt(v), correction, eps);
      w.store(m, b.m + i);
      w.store(v, b.v + i);
      w.store(hn::NegMulAdd(step, hn::Div(m, scale), hn::Mul(old, decay)), b.w + i);
    });
  }
};

}  // namespace

void adamw(const AdamW& a) {
  const FlatBuffers buffers{a.weights, a.master, a.gradients, a.m, a.v, rounding_key(a.seed, a.state->attempts)};
  update_blocks(buffers, a.ranges, a.n_ranges, [&](const UpdateRange& r) { return AdamWRule{adamw_factors(a, r)}; });
}

}  // namespace mixtape::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mixtape {

HWY_EXPORT(adamw);

void CpuOptimizer::adamw(const AdamW& a) {
  if (backend_.planning() || !a.state->finite) return;
  HWY_DYNAMIC_DISPATCH(adamw)(a);
}

}  // namespace mixtape
#endif
