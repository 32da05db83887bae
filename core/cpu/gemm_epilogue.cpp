#include "core/cpu/targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/cpu/gemm_epilogue.cpp"
#include "hwy/foreach_target.h"
//
#include "core/cpu/activation_math.h"
#include "core/cpu/gemm_epilogue.h"
#include "core/cpu/simd.h"

HWY_BEFORE_NAMESPACE();
namespace mixtape::HWY_NAMESPACE {
namespace {

// The value that storing to T and loading gives.
template <class T, class Width>
HWY_INLINE Vec rounded(Width, Vec v) {
  if constexpr (std::is_same_v<T, float>) {
    return v;
  } else {
    T copy[HWY_MAX_BYTES / sizeof(float)];
    store(v, copy);
    return load(copy);
  }
}

struct Identity {
  static HWY_INLINE Vec value(Vec x) { return x; }
};

template <class T, class Kind>
void bias_activation_rows(const BiasActivation& a) {
  const T* bias = reinterpret_cast<const T*>(a.bias);
  for (int64_t r = 0; r < a.rows; ++r) {
    const float* sums = a.sums.row<float>(r);
    T* y = a.y.row<T>(r);
    T* pre = a.pre ? a.pre.row<T>(r) : nullptr;
    each_vector(a.cols, [&](auto w, int64_t i) HWY_ATTR {
      Vec u = w.load(sums + i);
      if (bias) u = hn::Add(u, w.load(bias + i));
      u = rounded<T>(w, u);
      if (pre) w.store(u, pre + i);
      w.store(Kind::value(u), y + i);
    });
  }
}

template <class T, class Out, class Pre, class Kind>
void activation_slope_rows(const ActivationSlope& a) {
  if (a.column_sums) std::fill_n(a.column_sums, a.cols, 0.f);
  for (int64_t r = 0; r < a.rows; ++r) {
    const T* dy = a.dy.row<T>(r);
    Out* du = a.du ? a.du.row<Out>(r) : nullptr;
    float* sums = a.column_sums;
    each_vector(a.cols, [&](auto w, int64_t i) HWY_ATTR {
      Vec v = w.load(dy + i);
      if constexpr (!std::is_same_v<Kind, Identity>)
        v = hn::Mul(v, Kind::both(w.load(a.pre.row<Pre>(r) + i)).derivative);
      if (du) w.store(v, du + i);
      if (sums) w.store(hn::Add(w.load(sums + i), v), sums + i);
    });
  }
}

template <class To, class From>
void copy_rows(const Block& to, const Block& from, int64_t rows, int64_t cols, bool accumulate) {
  for (int64_t r = 0; r < rows; ++r) {
    To* y = to.row<To>(r);
    const From* x = from.row<From>(r);
    each_vector(cols, [&](auto w, int64_t i) HWY_ATTR { w.put(w.load(x + i), y + i, accumulate); });
  }
}

template <class Body>
void dispatch_kind(Unary kind, Body&& body) {
  if (kind == Unary::none) return body.template operator()<Identity>();
  dispatch_activation(kind, body);
}

}  // namespace

void bias_activation(const BiasActivation& a) {
  dispatch<float, fp16, bf16>(a.y.type, "linear", [&]<class T>() {
    dispatch_kind(a.activation, [&]<class Kind>() { bias_activation_rows<T, Kind>(a); });
  });
}

// The combinations of types that linear_backward makes: du is what the products take, so fp32, or bf16 where the CPU
// multiplies it; dy is fp32 where a gradient of narrower values is summed in fp32.
void activation_slope(const ActivationSlope& a) {
  const DType out = a.du ? a.du.type : DType::f32;
  const DType pre = a.pre ? a.pre.type : a.dy.type;
  dispatch_kind(a.activation, [&]<class Kind>() {
    dispatch<float, fp16, bf16>(pre, "linear_backward", [&]<class Pre>() {
      if (a.dy.type == DType::f32 && out == DType::f32) return activation_slope_rows<float, float, Pre, Kind>(a);
      if (a.dy.type == DType::f32 && out == DType::bf16) return activation_slope_rows<float, bf16, Pre, Kind>(a);
      if constexpr (!std::is_same_v<Pre, float>) {
        if (a.dy.type == pre && out == DType::f32) return activation_slope_rows<Pre, float, Pre, Kind>(a);
        if (a.dy.type == pre && out == pre) return activation_slope_rows<Pre, Pre, Pre, Kind>(a);
      }
      throw Error("linear_backward: dy is {}, pre {}, the products {}", a.dy.type, pre, out);
    });
  });
}

void copy_block(const Block& to, const Block& from, int64_t rows, int64_t cols, bool accumulate) {
  dispatch<float, fp16, bf16>(to.type, "copy", [&]<class To>() {
    if (from.type == DType::f32) return copy_rows<To, float>(to, from, rows, cols, accumulate);
    dispatch<fp16, bf16>(from.type, "copy", [&]<class From>() {
      if constexpr (std::is_same_v<To, float> || std::is_same_v<To, From>)
        copy_rows<To, From>(to, from, rows, cols, accumulate);
      else
        throw Error("copy: {} to {}", from.type, to.type);
    });
  });
}

}  // namespace mixtape::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mixtape {

HWY_EXPORT(bias_activation);
HWY_EXPORT(activation_slope);
HWY_EXPORT(copy_block);

void bias_activation(const BiasActivation& a) { HWY_DYNAMIC_DISPATCH(bias_activation)(a); }
void activation_slope(const ActivationSlope& a) { HWY_DYNAMIC_DISPATCH(activation_slope)(a); }
void copy_block(const Block& to, const Block& from, int64_t rows, int64_t cols, bool accumulate) {
  HWY_DYNAMIC_DISPATCH(copy_block)(to, from, rows, cols, accumulate);
}

}  // namespace mixtape
#endif
