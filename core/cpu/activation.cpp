// Activations and gated activations: elementwise, bound by memory.
#include "core/cpu/targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/cpu/activation.cpp"
#include "hwy/foreach_target.h"
//
#include "core/cpu/activation_math.h"
#include "core/cpu/backend.h"
#include "core/cpu/rows.h"
#include "core/cpu/simd.h"

HWY_BEFORE_NAMESPACE();
namespace mixtape::HWY_NAMESPACE {
namespace {

// Each works on one piece: elements (row, column .. column + n) of the result.

template <class T>
void forward_piece(const Activate& a, int64_t row, int64_t column, int64_t n) {
  const T* x = Rows<const T>(a.x)[row] + column;
  T* y = Rows<T>(a.y)[row] + column;
  if constexpr (std::is_same_v<T, float>) return activation_values(a.kind, x, y, n);
  alignas(64) float room[activation_block];
  each_block(n, [&](int64_t first, int64_t count) {
    activation_values(a.kind, as_floats(x + first, count, room), room, count);
    each_vector(count, [&](auto w, int64_t i) HWY_ATTR { w.store(w.load(room + i), y + first + i); });
  });
}

template <class T>
void backward_piece(const ActivateBackward& a, int64_t row, int64_t column, int64_t n) {
  const T* x = Rows<const T>(a.x)[row] + column;
  const T* dy = Rows<const T>(a.dy)[row] + column;
  T* dx = Rows<T>(a.dx.tensor)[row] + column;
  const bool accumulate = a.dx.accumulates();
  alignas(64) float slope[activation_block];
  each_block(n, [&](int64_t first, int64_t count) {
    activation_slopes(a.kind, as_floats(x + first, count, slope), nullptr, slope, count);
    each_vector(count, [&](auto w, int64_t i) HWY_ATTR {
      w.put(hn::Mul(w.load(dy + first + i), w.load(slope + i)), dx + first + i, accumulate);
    });
  });
}

template <class T>
void gated_row(const Activate& a, int64_t row) {
  const int64_t n = a.y.cols();
  const T *gate = Rows<const T>(a.x)[row], *up = gate + n;
  T* y = Rows<T>(a.y)[row];
  alignas(64) float value[activation_block];
  each_block(n, [&](int64_t first, int64_t count) {
    activation_values(a.kind, as_floats(gate + first, count, value), value, count);
    each_vector(count, [&](auto w, int64_t i)
                           HWY_ATTR { w.store(hn::Mul(w.load(value + i), w.load(up + first + i)), y + first + i); });
  });
}

template <class T>
void gated_backward_row(const ActivateBackward& a, int64_t row) {
  const int64_t n = a.dy.cols();
  const T *gate = Rows<const T>(a.x)[row], *up = gate + n, *dy = Rows<const T>(a.dy)[row];
  T *dgate = Rows<T>(a.dx.tensor)[row], *dup = dgate + n;
  const bool accumulate = a.dx.accumulates();
  alignas(64) float value[activation_block], slope[activation_block];
  each_block(n, [&](int64_t first, int64_t count) {
    activation_slopes(a.kind, as_floats(gate + first, count, slope), value, slope, count);
    each_vector(count, [&](auto w, int64_t i) HWY_ATTR {
      const Vec d = w.load(dy + first + i);
      const Vec through_gate = hn::Mul(hn::Mul(d, w.load(up + first + i)), w.load(slope + i));
      w.put(hn::Mul(d, w.load(value + i)), dup + first + i, accumulate);
      w.put(through_gate, dgate + first + i, accumulate);
    });
  });
}

}  // namespace

void activation(const Activate& a) {
  dispatch<float, fp16, bf16>(a.x.dtype(), "activation", [&]<class T>() {
    parallel_pieces({a.x, a.y}, [&](int64_t row, int64_t column, int64_t n) { forward_piece<T>(a, row, column, n); });
  });
}

void activation_backward(const ActivateBackward& a) {
  dispatch<float, fp16, bf16>(a.x.dtype(), "activation", [&]<class T>() {
    parallel_pieces({a.x, a.dy, a.dx.tensor},
                    [&](int64_t row, int64_t column, int64_t n) { backward_piece<T>(a, row, column, n); });
  });
}

void gated(const Activate& a) {
  dispatch<float, fp16, bf16>(a.x.dtype(), "gated_activation", [&]<class T>() {
    parallel_for(a.y.rows(), row_grain(a.y.cols()), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) gated_row<T>(a, r);
    });
  });
}

void gated_backward(const ActivateBackward& a) {
  dispatch<float, fp16, bf16>(a.x.dtype(), "gated_activation", [&]<class T>() {
    parallel_for(a.dy.rows(), row_grain(a.dy.cols()), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) gated_backward_row<T>(a, r);
    });
  });
}

}  // namespace mixtape::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mixtape {

HWY_EXPORT(activation);
HWY_EXPORT(activation_backward);
HWY_EXPORT(gated);
HWY_EXPORT(gated_backward);

void CpuActivation::activation(const Activate& a) {
  if (backend_.planning()) return;
  HWY_DYNAMIC_DISPATCH(activation)(a);
}

void CpuActivation::activation_backward(const ActivateBackward& a) {
  if (backend_.planning() || !a.dx) return;
  HWY_DYNAMIC_DISPATCH(activation_backward)(a);
}

void CpuActivation::gated(const Activate& a) {
  if (backend_.planning()) return;
  HWY_DYNAMIC_DISPATCH(gated)(a);
}

void CpuActivation::gated_backward(const ActivateBackward& a) {
  if (backend_.planning() || !a.dx) return;
  HWY_DYNAMIC_DISPATCH(gated_backward)(a);
}

}  // namespace mixtape
#endif
