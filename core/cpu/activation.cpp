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

template <class T, class Kind>
void activate(const T* x, T* y, int64_t n) {
  each_vector(n, [&](auto w, int64_t i) HWY_ATTR { w.store(Kind::value(w.load(x + i)), y + i); });
}

template <class T, class Kind>
void activate_backward(const T* dy, const T* x, T* dx, int64_t n, bool accumulate) {
  each_vector(n, [&](auto w, int64_t i) HWY_ATTR {
    const Vec slope = Kind::both(w.load(x + i)).derivative;
    w.put(hn::Mul(w.load(dy + i), slope), dx + i, accumulate);
  });
}

template <class T, class Kind>
void gate_row(const T* gate, const T* up, T* y, int64_t n) {
  each_vector(
      n, [&](auto w, int64_t i) HWY_ATTR { w.store(hn::Mul(Kind::value(w.load(gate + i)), w.load(up + i)), y + i); });
}

template <class T, class Kind>
void gate_row_backward(const T* dy, const T* gate, const T* up, T* dgate, T* dup, int64_t n, bool accumulate) {
  each_vector(n, [&](auto w, int64_t i) HWY_ATTR {
    const Vec d = w.load(dy + i);
    const ActivationValue g = Kind::both(w.load(gate + i));
    const Vec du = hn::Mul(d, g.value), dg = hn::Mul(hn::Mul(d, w.load(up + i)), g.derivative);
    w.put(dg, dgate + i, accumulate);
    w.put(du, dup + i, accumulate);
  });
}

}  // namespace

void activation(const Activate& a) {
  dispatch<float, fp16, bf16>(a.x.dtype(), "activation", [&]<class T>() {
    dispatch_activation(a.kind, [&]<class Kind>() {
      const Rows<const T> x(a.x);
      const Rows<T> y(a.y);
      parallel_pieces({a.x, a.y}, [&](int64_t r, int64_t c, int64_t n) { activate<T, Kind>(x[r] + c, y[r] + c, n); });
    });
  });
}

void activation_backward(const ActivateBackward& a) {
  dispatch<float, fp16, bf16>(a.x.dtype(), "activation_backward", [&]<class T>() {
    dispatch_activation(a.kind, [&]<class Kind>() {
      const Rows<const T> x(a.x), dy(a.dy);
      const Rows<T> dx(a.dx.tensor);
      parallel_pieces({a.x, a.dy, a.dx.tensor}, [&](int64_t r, int64_t c, int64_t n) {
        activate_backward<T, Kind>(dy[r] + c, x[r] + c, dx[r] + c, n, a.dx.accumulates());
      });
    });
  });
}

void gated(const Activate& a) {
  dispatch<float, fp16, bf16>(a.x.dtype(), "gated_activation", [&]<class T>() {
    dispatch_activation(a.kind, [&]<class Kind>() {
      const Rows<const T> x(a.x);
      const Rows<T> y(a.y);
      const int64_t n = a.y.cols();
      parallel_for(a.y.rows(), row_grain(n), [&](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; ++r) gate_row<T, Kind>(x[r], x[r] + n, y[r], n);
      });
    });
  });
}

void gated_backward(const ActivateBackward& a) {
  dispatch<float, fp16, bf16>(a.x.dtype(), "gated_activation_backward", [&]<class T>() {
    dispatch_activation(a.kind, [&]<class Kind>() {
      const Rows<const T> x(a.x), dy(a.dy);
      const Rows<T> dx(a.dx.tensor);
      const int64_t n = a.dy.cols();
      parallel_for(a.dy.rows(), row_grain(n), [&](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; ++r)
          gate_row_backward<T, Kind>(dy[r], x[r], x[r] + n, dx[r], dx[r] + n, n, a.dx.accumulates());
      });
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
