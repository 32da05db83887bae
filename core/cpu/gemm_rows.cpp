#include "core/cpu/targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/cpu/gemm_rows.cpp"
#include "hwy/foreach_target.h"
//
#include "core/cpu/gemm_rows.h"
#include "core/cpu/simd.h"

HWY_BEFORE_NAMESPACE();
namespace mixtape::HWY_NAMESPACE {
namespace {

// Four weight rows against R rows of x at once: R independent sums a weight row, each a single chain over i, so that
// its bits depend neither on R nor on its neighbours. Four chains or more hide the latency of an addition.
template <class T, int R>
void four_outputs(const GemmRows& a, int64_t row, int64_t output, int64_t outputs) {
  const FloatTag d;
  const T* w[4];
  for (int o = 0; o < 4; ++o) w[o] = a.weight.row<T>(output + std::min<int64_t>(o, outputs - 1));
  const T* x[R];
  for (int r = 0; r < R; ++r) x[r] = a.x.row<T>(row + r);
  Vec s00 = hn::Zero(d), s10 = s00, s20 = s00, s30 = s00, s01 = s00, s11 = s00, s21 = s00, s31 = s00;
  each_vector(a.cols, [&](auto width, int64_t i) HWY_ATTR {
    const Vec w0 = width.load(w[0] + i), w1 = width.load(w[1] + i);
    const Vec w2 = width.load(w[2] + i), w3 = width.load(w[3] + i);
    const Vec x0 = width.load(x[0] + i);
    s00 = hn::MulAdd(w0, x0, s00);
    s10 = hn::MulAdd(w1, x0, s10);
    s20 = hn::MulAdd(w2, x0, s20);
    s30 = hn::MulAdd(w3, x0, s30);
    if constexpr (R == 2) {
      const Vec x1 = width.load(x[1] + i);
      s01 = hn::MulAdd(w0, x1, s01);
      s11 = hn::MulAdd(w1, x1, s11);
      s21 = hn::MulAdd(w2, x1, s21);
      s31 = hn::MulAdd(w3, x1, s31);
    }
  });
  const auto put = [&](int r, Vec s0, Vec s1, Vec s2, Vec s3) HWY_ATTR {
    const float all[4] = {hn::GetLane(hn::SumOfLanes(d, s0)), hn::GetLane(hn::SumOfLanes(d, s1)),
                          hn::GetLane(hn::SumOfLanes(d, s2)), hn::GetLane(hn::SumOfLanes(d, s3))};
    std::copy_n(all, outputs, a.sums.row<float>(row + r) + output - a.begin);
  };
  put(0, s00, s10, s20, s30);
  if constexpr (R == 2) put(1, s01, s11, s21, s31);
}

}  // namespace

void gemm_rows(const GemmRows& a) {
  dispatch<float, fp16, bf16>(a.weight.type, "linear_rows", [&]<class T>() {
    for (int64_t output = a.begin; output < a.end; output += 4) {
      const int64_t outputs = std::min<int64_t>(4, a.end - output);
      int64_t row = 0;
      for (; row + 2 <= a.rows; row += 2) four_outputs<T, 2>(a, row, output, outputs);
      if (row < a.rows) four_outputs<T, 1>(a, row, output, outputs);
    }
  });
}

}  // namespace mixtape::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mixtape {

HWY_EXPORT(gemm_rows);
void gemm_rows(const GemmRows& a) { HWY_DYNAMIC_DISPATCH(gemm_rows)(a); }

}  // namespace mixtape
#endif
