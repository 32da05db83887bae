// Sums of squares of flat buffers. Include after foreach_target.h.
#if defined(MIXTAPE_CPU_OPTIMIZER_SUMS_H) == defined(HWY_TARGET_TOGGLE)
#ifdef MIXTAPE_CPU_OPTIMIZER_SUMS_H
#undef MIXTAPE_CPU_OPTIMIZER_SUMS_H
#else
#define MIXTAPE_CPU_OPTIMIZER_SUMS_H
#endif

#include "core/cpu/simd.h"

HWY_BEFORE_NAMESPACE();
namespace mixtape::HWY_NAMESPACE {

// In double precision squares of finite floats cannot overflow, so the sum is finite exactly if all elements are.
HWY_INLINE double sum_of_squares(const float* x, int64_t n) {
  int64_t i = 0;
  double total = 0;
#if HWY_TARGET != HWY_SCALAR
  const hn::ScalableTag<double> d;
  const hn::Rebind<float, decltype(d)> df;
  const int64_t step = int64_t(hn::Lanes(d));
  auto s0 = hn::Zero(d), s1 = s0, s2 = s0, s3 = s0;
  const auto at = [&](int64_t k) HWY_ATTR { return hn::PromoteTo(d, hn::LoadU(df, x + k)); };
  for (; i + 4 * step <= n; i += 4 * step) {
    const auto x0 = at(i), x1 = at(i + step), x2 = at(i + 2 * step), x3 = at(i + 3 * step);
    s0 = hn::MulAdd(x0, x0, s0);
    s1 = hn::MulAdd(x1, x1, s1);
    s2 = hn::MulAdd(x2, x2, s2);
    s3 = hn::MulAdd(x3, x3, s3);
  }
  total = hn::GetLane(hn::SumOfLanes(d, hn::Add(hn::Add(s0, s1), hn::Add(s2, s3))));
#endif
  for (; i < n; ++i) total += double(x[i]) * x[i];
  return total;
}

}  // namespace mixtape::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
