// Activations and gated activations: elementwise, bound by memory.
#include "core/cpu/targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/cpu/activation.cpp"
#include "hwy/foreach_target.h"
//
#include "core/cpu/activation_floats.h"
#include "core/cpu/activation_math.h"
#include "core/cpu/backend.h"
#include "core/cpu/rows.h"
#include "core/cpu/simd.h"

HWY_BEFORE_NAMESPACE();
namespace mixtape::HWY_NAMESPACE {
namespace {

// Each works on one piece: elements (row, column .. column + n) of the result.

template <class T, class Kind>
void forward_piece(const Activate& a, int64_t row, int64_t column, int64_t n) {
  const T* x = Rows<const T>(a.x)[row] + column;
  T* y = Rows<T>(a.y)[row] + column;
  each_vector(n, [&](auto w, int64_t i) HWY_ATTR { w.store(Kind::value(w.load(x + i)), y + i); });
}

template <class T, class Kind>
void backward_piece(const ActivateBackward& a, int64_t row, int64_t column, int64_t n) {
  const T* x = Rows<const T>(a.x)[row] + column;
  const T* dy = Rows<const T>(a.dy)[row] + column;
  T* dx = Rows<T>(a.dx.tensor)[row] + column;
  const bool accumulate = a.dx.accumulates();
  each_vector(n, [&](auto w, int64_t i) HWY_ATTR {
    const Vec slope = Kind::both(w.load(x + i)).derivative;
    w.put(hn::Mul(w.load(dy + i), slope), dx + i, accumulate);
  });
}

template <class T, class Kind>
void gated_row(const Activate& a, int64_t row) {
  const int64_t n = a.y.cols();
  const T *gate = Rows<const T>(a.x)[row], *up = gate + n;
  T* y = Rows<T>(a.y)[row];
  each_vector(
      n, [&](auto w, int64_t i) HWY_ATTR { w.store(hn::Mul(Kind::value(w.load(gate + i)), w.load(up + i)), y + i); });
}

template <class T, class Kind>
void gated_backward_row(const ActivateBackward& a, int64_t row) {
  const int64_t n = a.dy.cols();
  const T *gate = Rows<const T>(a.x)[row], *up = gate + n, *dy = Rows<const T>(a.dy)[row];
  T *dgate = Rows<T>(a.dx.tensor)[row], *dup = dgate + n;
  const bool accumulate = a.dx.accumulates();
  each_vector(n, [&](auto w, int64_t i) HWY_ATTR {
    const Vec d = w.load(dy + i);
    const ActivationValue g = Kind::both(w.load(gate + i));
    const Vec through_gate = hn::Mul(hn::Mul(d, w.load(up + i)), g.derivative);
    w.put(hn::Mul(d, g.value), dup + i, accumulate);
    w.put(through_gate, dgate + i, accumulate);
  });
}

// body.operator()<T, Kind>() for a type and an activation.
template <class Body>
void dispatch_both(DType type, Unary kind, const char* name, Body&& body) {
  dispatch<float, fp16, bf16>(type, name, [&]<class T>() {
    dispatch_activation(kind, [&]<class Kind>() { body.template operator()<T, Kind>(); });
  });
}

}  // namespace

void activation(const Activate& a) {
  void (*piece)(const Activate&, int64_t, int64_t, int64_t) = nullptr;
  dispatch_both(a.x.dtype(), a.kind, "activation", [&]<class T, class Kind>() { piece = forward_piece<T, Kind>; });
  parallel_pieces({a.x, a.y}, [&](int64_t row, int64_t column, int64_t n) { piece(a, row, column, n); });
}

void activation_backward(const ActivateBackward& a) {
  void (*piece)(const ActivateBackward&, int64_t, int64_t, int64_t) = nullptr;
  dispatch_both(a.x.dtype(), a.kind, "activation", [&]<class T, class Kind>() { piece = backward_piece<T, Kind>; });
  parallel_pieces({a.x, a.dy, a.dx.tensor}, [&](int64_t row, int64_t column, int64_t n) { piece(a, row, column, n); });
}

void gated(const Activate& a) {
  void (*row)(const Activate&, int64_t) = nullptr;
  dispatch_both(a.x.dtype(), a.kind, "gated_activation", [&]<class T, class Kind>() { row = gated_row<T, Kind>; });
  parallel_for(a.y.rows(), row_grain(a.y.cols()), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) row(a, r);
  });
}

void gated_backward(const ActivateBackward& a) {
  void (*row)(const ActivateBackward&, int64_t) = nullptr;
  dispatch_both(a.x.dtype(), a.kind, "gated_activation",
                [&]<class T, class Kind>() { row = gated_backward_row<T, Kind>; });
  parallel_for(a.dy.rows(), row_grain(a.dy.cols()), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) row(a, r);
  });
}

void activation_values(Unary kind, const float* x, float* y, int64_t n) {
  dispatch_activation(kind, [&]<class Kind>() {
    each_vector(n, [&](auto w, int64_t i) HWY_ATTR { w.store(Kind::value(w.load(x + i)), y + i); });
  });
}

void activation_slopes(Unary kind, const float* x, float* slope, int64_t n) {
  dispatch_activation(kind, [&]<class Kind>() {
    each_vector(n, [&](auto w, int64_t i) HWY_ATTR { w.store(Kind::both(w.load(x + i)).derivative, slope + i); });
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
