// AdamW: one pass over weights, gradients and both moments, bound by memory. Weights of 16 bits without a master are
// widened, updated and rounded by chance, a block in the first-level cache at a time.
#include "core/cpu/targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/cpu/optimizer/adamw.cpp"
#include "hwy/foreach_target.h"
//
#include <cmath>

#include "core/cpu/backend.h"
#include "core/cpu/simd.h"
#include "core/cpu/vector_philox.h"
#include "core/ops/stochastic_rounding.h"

#ifndef MIXTAPE_CPU_ADAMW_ONCE
#define MIXTAPE_CPU_ADAMW_ONCE
namespace mixtape {
namespace {

// What is the same for all elements of a range, computed once in double precision.
struct AdamWFactors {
  float keep_m, add_m, keep_v, add_v;
  float gradient;           // clip factor / loss_scale
  float decay;              // 1 - lr * weight_decay
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
          .decay = float(1 - lr * range.weight_decay),
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

struct FlatBuffers {
  const float* gradients;
  float *m, *v;
};

template <class T>
void adamw_by_chance(const AdamWFactors& f, PhiloxKey key, const UpdateRange& range, T* weights, const FlatBuffers& b) {
  constexpr int64_t block = 1024;
  alignas(64) float wide[block];
  uint32_t words[4 * (block / roundings_a_draw + 1)];
  for (int64_t i = 0; i < range.count; i += block) {
    const int64_t count = std::min(block, range.count - i), at = range.offset + i, first = range.first + i;
    each_vector(count, [&](auto w, int64_t j) HWY_ATTR { w.store(w.load(weights + at + j), wide + j); });
    adamw_span<float>(f, wide, nullptr, b.gradients + at, b.m + at, b.v + at, count);
    const int64_t draw = first / roundings_a_draw, last = (first + count - 1) / roundings_a_draw;
    philox_words(key, uint64_t(draw), range.parameter, Purpose::rounding, last - draw + 1, words);
    for (int64_t j = 0; j < count; ++j) {
      const int64_t element = first + j;
      const uint32_t random = rounding_bits(words[element / 2 - 4 * draw], uint64_t(element));
      weights[at + j] = round_stochastically<T>(wide[j], random);
    }
  }
}

}  // namespace

void adamw_without_master(const AdamW& a) {
  const FlatBuffers b{a.gradients.data<float>(), a.m.data<float>(), a.v.data<float>()};
  const PhiloxKey key = rounding_key(a.seed, a.state->attempts);
  dispatch<fp16, bf16>(a.weights.dtype(), "adamw", [&]<class T>() {
    T* weights = a.weights.data<T>();
    parallel_tasks(a.n_ranges,
                   [&](int64_t r) { adamw_by_chance<T>(adamw_factors(a, a.ranges[r]), key, a.ranges[r], weights, b); });
  });
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

HWY_EXPORT(adamw);
HWY_EXPORT(adamw_without_master);

void CpuOptimizer::adamw(const AdamW& a) {
  if (backend_.planning() || !a.state->finite) return;
  if (a.weights.dtype() != DType::f32 && !a.master) return HWY_DYNAMIC_DISPATCH(adamw_without_master)(a);
  HWY_DYNAMIC_DISPATCH(adamw)(a);
}

}  // namespace mixtape
#endif
