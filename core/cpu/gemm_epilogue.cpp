#include "core/cpu/targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/cpu/gemm_epilogue.cpp"
#include "hwy/foreach_target.h"
//
#include "core/cpu/activation_floats.h"
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

template <class T>
void bias_activation_rows(const BiasActivation& a) {
  const T* bias = reinterpret_cast<const T*>(a.bias);
  alignas(64) float room[activation_block];
  for (int64_t r = 0; r < a.rows; ++r) {
    const float* sums = a.sums.row<float>(r);
    T* y = a.y.row<T>(r);
    T* pre = a.pre ? a.pre.row<T>(r) : nullptr;
    each_block(a.cols, [&](int64_t first, int64_t n) {
      float* u = room;
      if constexpr (std::is_same_v<T, float>) u = y + first;
      each_vector(n, [&](auto w, int64_t i) HWY_ATTR {
        Vec v = w.load(sums + first + i);
        if (bias) v = hn::Add(v, w.load(bias + first + i));
        v = rounded<T>(w, v);
        if (pre) w.store(v, pre + first + i);
        w.store(v, u + i);
      });
      if (a.activation != Unary::none) activation_values(a.activation, u, u, n);
      if constexpr (!std::is_same_v<T, float>)
        each_vector(n, [&](auto w, int64_t i) HWY_ATTR { w.store(w.load(u + i), y + first + i); });
    });
  }
}

// act'(pre) of a block.
const float* slopes(const ActivationSlope& a, int64_t row, int64_t first, int64_t n, float* room) {
  if (a.activation == Unary::none) return nullptr;
  dispatch<float, fp16, bf16>(a.pre.type, "linear_backward", [&]<class T>() {
    activation_slopes(a.activation, as_floats(a.pre.row<const T>(row) + first, n, room), room, n);
  });
  return room;
}

template <class T, class Out>
void activation_slope_rows(const ActivationSlope& a) {
  if (a.column_sums) std::fill_n(a.column_sums, a.cols, 0.f);
  alignas(64) float room[activation_block];
  for (int64_t r = 0; r < a.rows; ++r)
    each_block(a.cols, [&](int64_t first, int64_t n) {
      const float* slope = slopes(a, r, first, n, room);
      const T* dy = a.dy.row<T>(r) + first;
      Out* du = a.du ? a.du.row<Out>(r) + first : nullptr;
      float* sums = a.column_sums ? a.column_sums + first : nullptr;
      each_vector(n, [&](auto w, int64_t i) HWY_ATTR {
        Vec v = w.load(dy + i);
        if (slope) v = hn::Mul(v, w.load(slope + i));
        if (du) w.store(v, du + i);
        if (sums) w.store(hn::Add(w.load(sums + i), v), sums + i);
      });
    });
}

template <class To, class From>
void copy_rows(const Block& to, const Block& from, int64_t rows, int64_t cols, bool accumulate) {
  for (int64_t r = 0; r < rows; ++r) {
    To* y = to.row<To>(r);
    const From* x = from.row<From>(r);
    each_vector(cols, [&](auto w, int64_t i) HWY_ATTR { w.put(w.load(x + i), y + i, accumulate); });
  }
}

}  // namespace

void bias_activation(const BiasActivation& a) {
  dispatch<float, fp16, bf16>(a.y.type, "linear", [&]<class T>() { bias_activation_rows<T>(a); });
}

// The combinations of types that linear_backward makes: du is what the products take, so fp32, or bf16 where the CPU
// multiplies it; dy is fp32 where a gradient of narrower values is summed in fp32.
void activation_slope(const ActivationSlope& a) {
  const DType out = a.du ? a.du.type : DType::f32;
  dispatch<float, fp16, bf16>(a.dy.type, "linear_backward", [&]<class T>() {
    if (out == DType::f32) return activation_slope_rows<T, float>(a);
    if (out == DType::bf16 && !std::is_same_v<T, fp16>) return activation_slope_rows<T, bf16>(a);
    if constexpr (std::is_same_v<T, fp16>)
      if (out == DType::f16) return activation_slope_rows<fp16, fp16>(a);
    throw Error("linear_backward: dy is {}, the products {}", a.dy.type, out);
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
