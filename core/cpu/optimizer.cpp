// The global gradient norm with its check for finiteness, and AdamW: one pass each, bound by memory.
#include "core/cpu/targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/cpu/optimizer.cpp"
#include "hwy/foreach_target.h"
//
#include <cmath>

#include "core/cpu/backend.h"
#include "core/cpu/rows.h"
#include "core/cpu/simd.h"

#ifndef MIXTAPE_CPU_OPTIMIZER_ONCE
#define MIXTAPE_CPU_OPTIMIZER_ONCE
namespace mixtape {
namespace {

// What is the same for all elements of a range, computed once in double precision.
struct AdamWFactors {
  float keep_m, add_m, keep_v, add_v;
  float gradient;           // clip factor / loss_scale
  float decay;              // 1 - lr * weight_decay
  float step;               // lr / (1 - beta1^t)
  float second_correction;  // 1 / sqrt(1 - beta2^t)
  float eps;
};

AdamWFactors adamw_factors(const AdamW& a, const UpdateRange& range) {
  const double t = double(a.state->updates) + 1;
  const double lr = double(a.state->learning_rate) * range.lr_factor;
  return {.keep_m = a.beta1,
          .add_m = float(1 - double(a.beta1)),
          .keep_v = a.beta2,
          .add_v = float(1 - double(a.beta2)),
          .gradient = a.state->grad_factor,
          .decay = float(1 - lr * range.weight_decay),
          .step = float(lr / (1 - std::pow(double(a.beta1), t))),
          .second_correction = float(1 / std::sqrt(1 - std::pow(double(a.beta2), t))),
          .eps = a.eps};
}

}  // namespace
}  // namespace mixtape
#endif

HWY_BEFORE_NAMESPACE();
namespace mixtape::HWY_NAMESPACE {
namespace {

// In double precision squares of finite floats cannot overflow, so the sum is finite exactly if all gradients are.
double sum_of_squares(const float* g, int64_t n) {
  int64_t i = 0;
  double total = 0;
#if HWY_TARGET != HWY_SCALAR
  const hn::ScalableTag<double> d;
  const hn::Rebind<float, decltype(d)> df;
  const int64_t step = int64_t(hn::Lanes(d));
  auto s0 = hn::Zero(d), s1 = s0, s2 = s0, s3 = s0;
  const auto at = [&](int64_t k) HWY_ATTR { return hn::PromoteTo(d, hn::LoadU(df, g + k)); };
  for (; i + 4 * step <= n; i += 4 * step) {
    const auto x0 = at(i), x1 = at(i + step), x2 = at(i + 2 * step), x3 = at(i + 3 * step);
    s0 = hn::MulAdd(x0, x0, s0);
    s1 = hn::MulAdd(x1, x1, s1);
    s2 = hn::MulAdd(x2, x2, s2);
    s3 = hn::MulAdd(x3, x3, s3);
  }
  total = hn::GetLane(hn::SumOfLanes(d, hn::Add(hn::Add(s0, s1), hn::Add(s2, s3))));
#endif
  for (; i < n; ++i) total += double(g[i]) * g[i];
  return total;
}

// `weights` is the master copy where there is one; `rounded` then is what the model computes with, else null.
template <class T>
void adamw_span(const AdamWFactors& f, float* weights, T* rounded, const float* gradients, float* m, float* v,
                int64_t n) {
  const Vec keep_m = set(f.keep_m), add_m = set(f.add_m), keep_v = set(f.keep_v), add_v = set(f.add_v);
  const Vec factor = set(f.gradient), decay = set(f.decay), step = set(f.step), eps = set(f.eps);
  const Vec correction = set(f.second_correction);
  each_vector(n, [&](auto w, int64_t i) HWY_ATTR {
    const Vec g = hn::Mul(w.load(gradients + i), factor);
    const Vec m1 = hn::MulAdd(g, add_m, hn::Mul(w.load(m + i), keep_m));
    const Vec v1 = hn::MulAdd(hn::Mul(g, g), add_v, hn::Mul(w.load(v + i), keep_v));
    const Vec scale = hn::MulAdd(hn::Sqrt(v1), correction, eps);
    const Vec weight = hn::NegMulAdd(step, hn::Div(m1, scale), hn::Mul(w.load(weights + i), decay));
    w.store(m1, m + i);
    w.store(v1, v + i);
    w.store(weight, weights + i);
    if (rounded) w.store(weight, rounded + i);
  });
}

}  // namespace

// partials[r]: the sum of squares of range r.
void range_norms(const GradientNorm& a, double* partials) {
  const float* gradients = a.gradients.data<float>();
  parallel_tasks(a.n_ranges,
                 [&](int64_t r) { partials[r] = sum_of_squares(gradients + a.ranges[r].offset, a.ranges[r].count); });
}

void adamw(const AdamW& a) {
  float* m = a.m.data<float>();
  float* v = a.v.data<float>();
  const float* gradients = a.gradients.data<float>();
  dispatch<float, fp16, bf16>(a.weights.dtype(), "adamw", [&]<class T>() {
    T* rounded = a.master ? a.weights.data<T>() : nullptr;
    float* weights = a.master ? a.master.data<float>() : a.weights.data<float>();
    parallel_tasks(a.n_ranges, [&](int64_t r) {
      const UpdateRange& range = a.ranges[r];
      const int64_t o = range.offset;
      adamw_span<T>(adamw_factors(a, range), weights + o, rounded ? rounded + o : nullptr, gradients + o, m + o, v + o,
                    range.count);
    });
  });
}

}  // namespace mixtape::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mixtape {

HWY_EXPORT(range_norms);
HWY_EXPORT(adamw);

namespace {

// Neighbours are added, then neighbours of those: aligned halves of the buffer have sums of their own, which another
// rank may have made.
double tree_sum(double* values, int64_t n) {
  if (n == 0) return 0;
  for (int64_t width = 1; width < n; width *= 2)
    for (int64_t i = 0; i + width < n; i += 2 * width) values[i] += values[i + width];
  return values[0];
}

}  // namespace

void CpuOptimizer::gradient_norm(const GradientNorm& a) {
  const int64_t chunks = (a.gradients.count() + chunk_elements - 1) / chunk_elements;
  const Tensor scratch = backend_.workspace({a.n_ranges + chunks}, DType::i64);  // doubles
  if (backend_.planning()) return;
  double* partials = reinterpret_cast<double*>(scratch.raw());
  double* by_chunk = partials + a.n_ranges;
  HWY_DYNAMIC_DISPATCH(range_norms)(a, partials);
  std::fill(by_chunk, by_chunk + chunks, 0.0);
  for (int64_t r = 0; r < a.n_ranges; ++r) by_chunk[a.ranges[r].offset / chunk_elements] += partials[r];

  StepState& state = *a.state;
  const double norm = std::sqrt(tree_sum(by_chunk, chunks)) / state.loss_scale;
  const double clip = a.clip > 0 ? std::min(1.0, a.clip / (norm + 1e-6)) : 1.0;
  state.grad_norm = float(norm);
  state.finite = std::isfinite(norm) ? 1 : 0;
  state.grad_factor = state.finite ? float(clip / state.loss_scale) : 0.f;
}

void CpuOptimizer::adamw(const AdamW& a) {
  if (backend_.planning() || !a.state->finite) return;
  HWY_DYNAMIC_DISPATCH(adamw)(a);
}

}  // namespace mixtape
#endif
