// The activations of runs of floats, for who brings other types here through the first-level cache, as the matmul's
// fused epilogue does: each is compiled once for all of its types. Include after hwy/foreach_target.h.
#if defined(MIXTAPE_CPU_ACTIVATION_FLOATS_H) == defined(HWY_TARGET_TOGGLE)
#ifdef MIXTAPE_CPU_ACTIVATION_FLOATS_H
#undef MIXTAPE_CPU_ACTIVATION_FLOATS_H
#else
#define MIXTAPE_CPU_ACTIVATION_FLOATS_H
#endif

#include <algorithm>

#include "core/cpu/simd.h"
#include "core/ops/activation.h"

HWY_BEFORE_NAMESPACE();
namespace mixtape::HWY_NAMESPACE {

// y = act(x). y may be x.
void activation_values(Unary kind, const float* x, float* y, int64_t n);

// slope = act'(x). slope may be x.
void activation_slopes(Unary kind, const float* x, float* slope, int64_t n);

// body(i, count) for n elements a block at a time, of which floats fit into the first-level cache.
constexpr int64_t activation_block = 512;
template <class Body>
HWY_INLINE void each_block(int64_t n, Body&& body) {
  for (int64_t i = 0; i < n; i += activation_block) body(i, std::min(activation_block, n - i));
}

// x as floats: where it lies, or in `room`.
template <class T>
HWY_INLINE const float* as_floats(const T* x, int64_t n, float* room) {
  if constexpr (std::is_same_v<T, float>) return x;
  each_vector(n, [&](auto w, int64_t i) HWY_ATTR { w.store(w.load(x + i), room + i); });
  return room;
}

}  // namespace mixtape::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
