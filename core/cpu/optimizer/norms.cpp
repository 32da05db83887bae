// The global gradient norm with its check for finiteness, and the root mean squares of tensors: one pass each, bound by
// memory.
#include "core/cpu/targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/cpu/optimizer/norms.cpp"
#include "hwy/foreach_target.h"
//
#include <cmath>

#include "core/base/dispatch.h"
#include "core/cpu/backend.h"
#include "core/cpu/optimizer/sums-inl.h"
#include "core/ops/optimizer_pieces.h"

HWY_BEFORE_NAMESPACE();
namespace mixtape::HWY_NAMESPACE {

// Widened a block at a time, in the first-level cache.
HWY_INLINE double sum_of_squares(const bf16* x, int64_t n) {
  constexpr int64_t block = 1024;
  alignas(64) float wide[block];
  double total = 0;
  for (int64_t i = 0; i < n; i += block) {
    const int64_t count = std::min(block, n - i);
    each_vector(count, [&](auto w, int64_t j) HWY_ATTR { w.store(w.load(x + i + j), wide + j); });
    total += sum_of_squares(wide, count);
  }
  return total;
}

// partials[r]: the sum of squares of range r.
void range_norms(const Tensor& flat, const UpdateRange* ranges, int64_t n_ranges, double* partials) {
  dispatch<float, bf16>(flat.dtype(), "gradient_norm", [&]<class T>() {
    const T* values = flat.data<T>();
    parallel_tasks(n_ranges,
                   [&](int64_t r) { partials[r] = sum_of_squares(values + ranges[r].offset, ranges[r].count); });
  });
}

}  // namespace mixtape::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mixtape {

HWY_EXPORT(range_norms);

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

void CpuOptimizer::range_squares(const RangeSquares& a) {
  if (backend_.planning()) return;
  HWY_DYNAMIC_DISPATCH(range_norms)
  (a.gradients, a.ranges, a.n_ranges, reinterpret_cast<double*>(a.squares.raw()));
}

void CpuOptimizer::gradient_norm(const GradientNorm& a) {
  const Tensor squares =
      a.squares ? a.squares : backend_.workspace({std::max<int64_t>(a.n_ranges, 1)}, DType::i64);  // doubles
  const int64_t chunks = chunks_of(a.ranges, a.n_ranges);
  const Tensor sums = backend_.workspace({std::max<int64_t>(chunks, 1)}, DType::i64);
  if (backend_.planning()) return;
  if (!a.squares) range_squares({squares, a.gradients, a.ranges, a.n_ranges});
  const double* by_range = reinterpret_cast<const double*>(squares.raw());
  double* by_chunk = reinterpret_cast<double*>(sums.raw());
  std::fill(by_chunk, by_chunk + chunks, 0.0);
  for (int64_t r = 0; r < a.n_ranges; ++r) by_chunk[a.ranges[r].offset / chunk_elements] += by_range[r];

  StepState& state = *a.state;
  state.grad_squares = (a.adds ? state.grad_squares : 0) + tree_sum(by_chunk, chunks);
  const double norm = std::sqrt(state.grad_squares) / state.loss_scale;
  const double largest = a.adds ? std::max(norm, double(state.last_norm)) : norm;
  const double clip = a.clip > 0 ? std::min(1.0, a.clip / (largest + 1e-6)) : 1.0;
  state.grad_norm = float(norm);
  state.finite = std::isfinite(norm) ? 1 : 0;
  state.grad_factor = state.finite ? float(clip / state.loss_scale) : 0.f;
}

void CpuOptimizer::parameter_scales(const ParameterScales& a) {
  const std::vector<UpdateRange> pieces = pieces_of(a.tensors, a.n_tensors);
  const auto n_pieces = int64_t(pieces.size());
  const Tensor scratch = backend_.workspace({n_pieces}, DType::i64);  // doubles
  if (backend_.planning()) return;
  double* partials = reinterpret_cast<double*>(scratch.raw());
  HWY_DYNAMIC_DISPATCH(range_norms)(a.weights, pieces.data(), n_pieces, partials);
  float* scales = a.scales.data<float>();
  for (int64_t p = 0; p < n_pieces;) {
    const int32_t tensor = pieces[p].tensor;
    double sum = 0;
    for (; p < n_pieces && pieces[p].tensor == tensor; ++p) sum += partials[p];
    scales[tensor] = std::max(a.least, float(std::sqrt(sum / double(a.tensors[tensor].count()))));
  }
}

}  // namespace mixtape
#endif
