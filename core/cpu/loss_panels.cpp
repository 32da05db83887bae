#include "core/cpu/targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/cpu/loss_panels.cpp"
#include "hwy/foreach_target.h"
//
#include <limits>

#include "core/base/dispatch.h"
#include "core/cpu/loss_panels.h"
#include "core/cpu/simd.h"
#include "core/cpu/vector_math.h"

HWY_BEFORE_NAMESPACE();
namespace mixtape::HWY_NAMESPACE {
namespace {

template <class T>
void exponentials_of(const Panel& p) {
  const FloatTag d;
  const T* bias = reinterpret_cast<const T*>(p.bias);
  const Vec scale = set(p.logit_scale), least = set(-std::numeric_limits<float>::infinity());
  for (int64_t r = 0; r < p.rows; ++r) {
    float* z = p.z + r * p.stride;
    Vec max = least;
    const float sum_z = sum_over(p.cols, [&](auto w, int64_t i) HWY_ATTR {
      Vec v = w.load(z + i);
      if (bias) v = hn::Add(v, w.load(bias + i));
      v = hn::Mul(v, scale);
      w.store(v, z + i);
      return v;
    });
    each_vector(p.cols, [&](auto w, int64_t i) HWY_ATTR {
      const Vec v = w.load(z + i);
      if constexpr (std::is_same_v<decltype(w), Whole>)
        max = hn::Max(max, v);
      else
        max = hn::IfThenElse(hn::FirstN(d, size_t(w.n)), hn::Max(max, v), max);
    });
    const float m = hn::GetLane(hn::MaxOfLanes(d, max));
    const Vec vm = set(m);
    const int64_t target = int64_t(p.targets[r]) - p.first_col;
    if (target >= 0 && target < p.cols) p.target_z[r] = z[target];
    int32_t best = 0;
    if (p.finds_best)
      while (best + 1 < p.cols && z[best] != m) ++best;
    const float sum = sum_over(p.cols, [&](auto w, int64_t i) HWY_ATTR {
      const Vec e = Exp(d, hn::Sub(w.load(z + i), vm));
      w.store(e, z + i);
      return e;
    });
    p.stats[r * p.stats_stride] = {m, sum, sum_z, 0, best};
  }
}

template <class T>
void gradient_of(const Panel& p, const PanelGradient& a) {
  const Vec uniform = set(a.uniform);
  for (int64_t r = 0; r < p.rows; ++r) {
    const float* z = p.z + r * p.stride;
    T* g = reinterpret_cast<T*>(a.g) + r * a.stride;
    const Vec factor = set(p.stats[r * p.stats_stride].factor);
    float* sums = a.column_sums;
    const int64_t target = int64_t(p.targets[r]) - p.first_col;
    const bool here = target >= 0 && target < p.cols;
    const float at_target = here ? z[target] * p.stats[r * p.stats_stride].factor - a.uniform - a.target : 0.f;
    const float beside = here ? z[target] * p.stats[r * p.stats_stride].factor - a.uniform : 0.f;
    each_vector(p.cols, [&](auto w, int64_t i) HWY_ATTR {
      const Vec v = hn::Sub(hn::Mul(w.load(z + i), factor), uniform);
      w.store(v, g + i);
      if (sums) w.store(hn::Add(w.load(sums + i), v), sums + i);
    });
    if (here) {
      g[target] = T(at_target);
      if (sums) sums[target] += at_target - beside;
    }
  }
}

}  // namespace

void exponentials(const Panel& p) {
  dispatch<float, fp16, bf16>(p.type, "cross_entropy", [&]<class T>() { exponentials_of<T>(p); });
}

void panel_gradient(const Panel& p, const PanelGradient& a) {
  dispatch<float, bf16>(a.type, "cross_entropy", [&]<class T>() { gradient_of<T>(p, a); });
}

}  // namespace mixtape::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mixtape {

HWY_EXPORT(exponentials);
HWY_EXPORT(panel_gradient);

void exponentials(const Panel& p) { HWY_DYNAMIC_DISPATCH(exponentials)(p); }
void panel_gradient(const Panel& p, const PanelGradient& a) { HWY_DYNAMIC_DISPATCH(panel_gradient)(p, a); }

}  // namespace mixtape
#endif
