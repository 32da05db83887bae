// The vector functions against float64 over the whole range, on every instruction set that this CPU has.
#include "core/cpu/targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tests/ops/vector_math_test.cpp"
#include "hwy/foreach_target.h"
//
#include "core/cpu/vector_math.h"

HWY_BEFORE_NAMESPACE();
namespace mixtape::HWY_NAMESPACE {

// y[i] = f(x[i]); which: 0 exp, 1 log, 2 tanh, 3 erf, 4 fast exp. n is a multiple of 16.
void evaluate(int which, const float* x, float* y, size_t n) {
  const hn::ScalableTag<float> d;
  for (size_t i = 0; i < n; i += hn::Lanes(d)) {
    const auto v = hn::LoadU(d, x + i);
    const auto result = which == 0   ? Exp(d, v)
                        : which == 1 ? Log(d, v)
                        : which == 2 ? Tanh(d, v)
                        : which == 3 ? Erf(d, v)
                                     : FastExp(d, v);
    hn::StoreU(result, d, y + i);
  }
}

}  // namespace mixtape::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <vector>

namespace mixtape {
HWY_EXPORT(evaluate);

namespace {

struct Function {
  const char* name;
  double (*exact)(double);
  double most_ulp;           // with fused multiply-add
  double most_ulp_portable;  // without
};
const Function functions[] = {
    {"exp", [](double x) { return std::exp(x); }, 1.1, 1.1},
    {"log", [](double x) { return std::log(x); }, 0.8, 0.8},
    {"tanh", [](double x) { return std::tanh(x); }, 4.3, 4.9},
    {"erf", [](double x) { return std::erf(x); }, 4.9, 5.5},
};

// The error in units in the last place of the exact value, as float32 spaces them there.
double ulps(float y, double exact) {
  if (std::isnan(exact) || std::isnan(y)) return std::isnan(exact) == std::isnan(y) ? 0 : INFINITY;
  const float rounded = float(exact);
  if (y == rounded) return 0;
  if (std::isinf(rounded) || std::isinf(y))
    return std::abs(double(y)) >= std::numeric_limits<float>::max() && std::isinf(rounded) ? 1 : INFINITY;
  const int exponent = std::max(std::ilogb(exact == 0 ? 1e-45 : exact), -126);
  return std::abs(y - exact) / std::ldexp(1.0, exponent - 23);
}

// Floats of every exponent and sign: all bit patterns a prime apart, and the special ones.
std::vector<float> inputs() {
  std::vector<float> x = {0.f,         -0.f,        INFINITY,  -INFINITY, NAN,
                          1.f,         -1.f,        88.72283f, 88.72284f, -87.33655f,
                          -103.97208f, -103.97209f, 1e-45f,    -1e-45f,   1.17549435e-38f,
                          0.70710677f, 0.70710683f, 9.02f,     3.92f};
  for (uint64_t bits = 0; bits < (uint64_t(1) << 32); bits += 2039) x.push_back(std::bit_cast<float>(uint32_t(bits)));
  for (float v = -105; v < 90; v += 0.000977f) x.push_back(v);
  while (x.size() % 16) x.push_back(0.f);
  return x;
}

double worst(int which, const std::vector<float>& x, float& where) {
  std::vector<float> y(x.size());
  HWY_DYNAMIC_DISPATCH(evaluate)(which, x.data(), y.data(), x.size());
  double most = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double error = ulps(y[i], functions[which].exact(x[i]));
    if (error > most) most = error, where = x[i];
  }
  return most;
}

// body() with each instruction set that was compiled and that this CPU has.
template <class Body>
void on_each_target(Body&& body) {
  for (int64_t target : {int64_t(HWY_AVX3), int64_t(HWY_AVX2), int64_t(HWY_STATIC_TARGET)}) {
    if (!(HWY_TARGETS & hwy::SupportedTargets() & target) && target != HWY_STATIC_TARGET) continue;
    hwy::GetChosenTarget().Update(target);
    body(target);
  }
  hwy::GetChosenTarget().DeInit();
}

TEST(VectorMath, WithinUlps) {
  const auto x = inputs();
  on_each_target([&](int64_t target) {
    for (int f = 0; f < 4; ++f) {
      float where = 0;
      const double most = worst(f, x, where);
      const double limit = target == HWY_STATIC_TARGET ? functions[f].most_ulp_portable : functions[f].most_ulp;
      EXPECT_LE(most, limit) << functions[f].name << " at " << where << " on " << hwy::TargetName(target);
      RecordProperty(std::string(functions[f].name) + hwy::TargetName(target), std::to_string(most));
    }
  });
}

TEST(VectorMath, FastExp) {
  const auto x = inputs();
  std::vector<float> y(x.size());
  on_each_target([&](int64_t) {
    HWY_DYNAMIC_DISPATCH(evaluate)(4, x.data(), y.data(), x.size());
    for (size_t i = 0; i < x.size(); ++i) {
      if (x[i] <= -88) {
        ASSERT_EQ(y[i], 0) << x[i];
      } else if (x[i] >= 88.7228f) {
        ASSERT_EQ(y[i], INFINITY) << x[i];
      } else if (x[i] > -87.6f && x[i] < 88.3f) {
        ASSERT_LE(ulps(y[i], std::exp(double(x[i]))), 1.1) << x[i];
      } else if (std::isnan(x[i])) {
        ASSERT_TRUE(std::isnan(y[i]));
      }
    }
  });
}

}  // namespace
}  // namespace mixtape
#endif
