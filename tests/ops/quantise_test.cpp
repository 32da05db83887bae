// Rounding through 8-bit codes, the scales that follow from step to step, and linear layers of such operands: against
// codes of core/base/dtype.h and sums in float64.
#include <algorithm>
#include <bit>
#include <deque>
#include <functional>

#include "core/base/code_scale.h"
#include "core/ops/cast.h"
#include "core/ops/matmul.h"
#include "tests/ops/update_bench.h"

namespace mixtape {
namespace {

const std::vector<DType> code_types{DType::e4m3, DType::e5m2, DType::i8};

double largest_code(DType codes) { return codes == DType::e4m3 ? 448 : codes == DType::e5m2 ? 57344 : 127; }

// code(x), as a number.
float coded(DType codes, float x) {
  if (codes == DType::i8) return std::nearbyint(std::min(127.f, std::max(-127.f, x)));
  return codes == DType::e4m3 ? float(e4m3::saturating(x)) : float(e5m2::saturating(x));
}

TEST(CodeScale, IsTheLeastPowerOfTwoThatHoldsTheLargest) {
  for (const DType codes : {DType::e4m3, DType::e5m2})
    for (const float amax : {1e-20f, 0.01f, 0.4375f, 0.43750003f, 0.875f, 1.f, 1.75f, 1.7500001f, 447.9f, 448.f, 448.1f,
                             57344.f, 57345.f, 1e20f}) {
      const double scale = code_scale(codes, amax);
      int exponent = 0;
      EXPECT_EQ(std::frexp(scale, &exponent), 0.5) << amax;
      EXPECT_LE(amax / scale, largest_code(codes)) << amax;
      EXPECT_GT(amax / (scale / 2), largest_code(codes)) << amax;
      EXPECT_EQ(code_scale(codes, amax, 3), 8 * scale);
    }
  EXPECT_EQ(code_scale(DType::i8, 254), 2);
  for (const DType codes : code_types) {
    for (const float none : {0.f, INFINITY, NAN}) EXPECT_EQ(code_scale(codes, none), 0);
    EXPECT_TRUE(std::isnormal(code_scale(codes, 3.4e38f, 8)));
  }
  EXPECT_EQ(code_scale(DType::e4m3, 1e-44f), 0x1p-100f);
  EXPECT_EQ(code_scale(DType::e5m2, 3.4e38f, 8), 0x1p100f);
}

class Quantising : public testing::TestWithParam<DType> {
 protected:
  // Numbers of every size, beside each other, that have these types exactly.
  static Floats numbers(int64_t n, DType type) {
    Floats x = normals(n, 5, 2);
    dispatch<float, fp16, bf16>(type, "test", [&]<class T>() {
      for (float& v : x) v = float(T(v));
    });
    return x;
  }
  static Floats read(const Bench& b, const Tensor& t) {
    Floats values;
    dispatch<float, fp16, bf16>(t.dtype(), "test", [&]<class T>() {
      for (const T v : b.get<T>(t)) values.push_back(float(v));
    });
    return values;
  }
  static float stored(DType type, float x) {
    float y = x;
    dispatch<float, fp16, bf16>(type, "test", [&]<class T>() { y = float(T(x)); });
    return y;
  }
  static float largest(const Floats& x) {
    float most = 0;
    for (const float v : x) most = std::max(most, std::abs(v));
    return most;
  }
};

TEST_P(Quantising, RoundsToTheNearestCodeTimesTheScale) {
  const DType type = GetParam();
  for (const TestDevice& device : update_devices())
    for (const DType codes : code_types)
      for (const int64_t n : {1, 37, 2048, 40001}) {
        Bench b(device);
        const Floats x = numbers(n, type);
        const Tensor from = b.put_as(x, type), to = b.put_as(Floats(size_t(n), NAN), type), amax = b.put(Floats{0.5f});
        for (const float scale : {0.25f, 0x1p-9f}) {  // the second is too small for the largest
          (*b).cast().quantise({.y = to, .x = from, .codes = codes, .scale = b.put(Floats{scale}), .amax = amax});
          const Floats y = read(b, to);
          for (size_t i = 0; i < x.size(); ++i)
            ASSERT_EQ(y[i], stored(type, coded(codes, x[i] / scale) * scale))
                << device.name << " " << name_of(codes) << " " << i << " of " << n << ": " << x[i];
        }
        EXPECT_EQ(b.get<float>(amax)[0], std::max(0.5f, largest(x)));
        (*b).cast().quantise({.y = from, .x = from, .codes = codes, .scale = b.put(Floats{0x1p-9f})});
        EXPECT_EQ(b.bits(from), b.bits(to)) << "in place";
      }
}

// Without one, or while nothing is known.
TEST_P(Quantising, TakesTheScaleOfItsOwnLargest) {
  const DType type = GetParam();
  for (const TestDevice& device : update_devices())
    for (const DType codes : code_types)
      for (const bool unknown : {false, true}) {
        Bench b(device);
        const Floats x = numbers(3 * 131, type);
        const Tensor from = b.put_as(x, type), to = b.put_as(Floats(x.size(), NAN), type);
        const Tensor scale = unknown ? b.put(Floats{0}) : Tensor();
        (*b).cast().quantise({.y = to, .x = from, .codes = codes, .scale = scale});
        const Floats y = read(b, to);
        const float s = code_scale(codes, largest(x)), by = 1 / s;
        for (size_t i = 0; i < x.size(); ++i) ASSERT_EQ(y[i], stored(type, coded(codes, x[i] * by) * s)) << device.name;
        if (unknown) {
          EXPECT_EQ(b.get<float>(scale)[0], 0) << "written";
        }
        // A row each; one of them of zeros, one with the largest elsewhere, in a view.
        const Tensor view = from.reshaped({3, 131}).columns(1, 129), rows = to.reshaped({3, 131}).columns(2, 129);
        (*b).zero(from.reshaped({3, 131}).slice(1, 1));
        (*b).cast().quantise({.y = rows, .x = view, .codes = codes, .by_rows = true});
        const Floats all = read(b, to);
        for (int64_t r = 0; r < 3; ++r) {
          Floats row(x.begin() + r * 131 + 1, x.begin() + r * 131 + 130);
          if (r == 1) std::fill(row.begin(), row.end(), 0.f);
          const float of_row = r == 1 ? 1 : code_scale(codes, largest(row)), times = 1 / of_row;
          for (int64_t c = 0; c < 129; ++c)
            ASSERT_EQ(all[size_t(r * 131 + c + 2)], stored(type, coded(codes, row[size_t(c)] * times) * of_row))
                << device.name << " " << r << " " << c;
        }
      }
}

TEST_P(Quantising, KeepsWhatIsNotFinite) {
  const DType type = GetParam();
  for (const TestDevice& device : update_devices())
    for (const DType codes : code_types) {
      Bench b(device);
      Floats x(100, 1.5f);
      x[17] = -INFINITY;
      const Tensor amax = b.put(Floats{0}), to = b.put_as(x, type);
      (*b).cast().quantise({.y = to, .x = to, .codes = codes, .amax = amax});
      EXPECT_EQ(read(b, to)[17], -INFINITY);
      EXPECT_EQ(b.get<float>(amax)[0], INFINITY);
      x[99] = NAN;
      const Tensor with_nan = b.put_as(x, type);
      (*b).cast().quantise({.y = with_nan, .x = with_nan, .codes = codes, .scale = b.put(Floats{1}), .amax = amax});
      EXPECT_TRUE(std::isnan(read(b, with_nan)[99]));
      EXPECT_TRUE(std::isnan(b.get<float>(amax)[0])) << device.name;
    }
}

INSTANTIATE_TEST_SUITE_P(Types, Quantising, testing::Values(DType::f32, DType::f16, DType::bf16),
                         [](const auto& type) { return std::string(name_of(type.param)); });

// Steps of six operands against lists; one is skipped, and magnitudes that are not finite come and go.
TEST(UpdateScales, FollowTheLargestOfTheHistory) {
  constexpr std::array codes{DType::e4m3, DType::e4m3, DType::e5m2};
  for (const TestDevice& device : update_devices())
    for (const int64_t length : {1, 4, 700}) {
      Bench b(device);
      const Tensor scale = b.put(Floats(6, 0)), amax = b.put(Floats(6, 0));
      const Tensor history = b.put(Floats(size_t(6 * length), 0)).reshaped({6, length});
      std::vector<std::deque<float>> lists(6);
      uint64_t updates = 0;
      for (int step = 0; step < 12; ++step) {
        Floats now = normals(6, uint64_t(step), 3);
        for (float& v : now) v = std::abs(v);
        if (step == 3) now[1] = INFINITY, now[2] = NAN, now[5] = 0;
        const bool skipped = step == 5;
        (*b).copy_from_host(amax, now.data());
        const Floats before = b.get<float>(scale);
        const std::vector<std::byte> history_before = b.bits(history);
        StepState* const state = b.state({.updates = updates, .finite = !skipped});
        (*b).cast().update_scales(
            {.state = state, .scale = scale, .amax = amax, .history = history, .codes = codes, .margin = 1});
        EXPECT_EQ(b.get<float>(amax), Floats(6, 0));
        if (skipped) {
          EXPECT_EQ(b.get<float>(scale), before);
          EXPECT_EQ(b.bits(history), history_before);
          continue;
        }
        ++updates;
        for (size_t i = 0; i < 6; ++i) {
          lists[i].push_back(std::isfinite(now[i]) ? now[i] : 0);
          if (int64_t(lists[i].size()) > length) lists[i].pop_front();
          const float most = *std::max_element(lists[i].begin(), lists[i].end());
          EXPECT_EQ(b.get<float>(scale)[i], code_scale(codes[i % 3], most, 1))
              << device.name << " " << step << " " << i;
        }
      }
    }
}

// x, W, b and dy, and a layer of them.
struct Layer {
  int64_t rows, in, out;
  Floats x, weight, bias, dy;

  Layer(int64_t rows, int64_t in, int64_t out)
      : rows(rows),
        in(in),
        out(out),
        x(normals(rows * in, 1, 1)),
        weight(normals(out * in, 2, 1)),
        bias(normals(out, 3)),
        dy(normals(rows * out, 4, 1)) {}

  // Of numbers that bf16 has.
  Layer& in_bf16() {
    for (Floats* values : {&x, &weight, &bias, &dy})
      for (float& v : *values) v = float(bf16(v));
    return *this;
  }
  // What an operand counts for: codes in float64, times their scale.
  static Doubles operand(const Floats& values, DType codes, double scale) {
    Doubles q;
    for (const float v : values) q.push_back(double(coded(codes, float(v / scale))) * scale);
    return q;
  }
};

struct LayerResult {
  Floats y, dx, dweight, dbias, amax;
};
LayerResult run(Bench& b, const Layer& l, const OperandCodes& codes, const Tensor& scale, bool training = true,
                DType type = DType::f32) {
  Tape tape(*b, nullptr, nullptr);
  tape.set_training(training);
  const auto widened = [&](const Tensor& t) {
    if (t.dtype() == DType::f32) return b.get<float>(t);
    Floats values;
    for (const bf16 v : b.get<bf16>(t)) values.push_back(float(v));
    return values;
  };
  const Tensor x = tape.leaf(b.put_as(l.x, type).reshaped({l.rows, l.in}));
  const Tensor weight = tape.leaf(b.put_as(l.weight, type).reshaped({l.out, l.in}), DType::f32),
               bias = tape.leaf(b.put_as(l.bias, type), DType::f32);
  const Tensor amax = codes.by_rows ? Tensor() : b.put(Floats(3, 0));
  const Tensor y = quantised_linear(tape, x, weight, bias, codes, scale, amax);
  LayerResult result{.y = widened(y)};
  if (!training) {
    result.amax = b.get<float>(amax);
    return result;
  }
  tape.seed(y, b.put_as(l.dy, type).reshaped({l.rows, l.out}));
  tape.backward();
  result.dx = widened(tape.gradient(x));
  result.dweight = b.get<float>(tape.gradient(weight));
  result.dbias = b.get<float>(tape.gradient(bias));
  if (amax) result.amax = b.get<float>(amax);
  return result;
}

// |a b^T| of the magnitudes bounds what other orders of addition in float32 can change; the result is rounded once.
void expect_product(const Floats& result, int64_t rows, int64_t cols, int64_t terms, const char* what,
                    const std::function<double(int64_t, int64_t, int64_t)>& term,
                    const std::function<double(int64_t)>& added = {}, DType type = DType::f32) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < cols; ++c) {
      double sum = added ? added(c) : 0, magnitudes = std::abs(sum);
      for (int64_t k = 0; k < terms; ++k) sum += term(r, c, k), magnitudes += std::abs(term(r, c, k));
      const double rounding = type == DType::f32 ? 0 : roundoff(type) * std::abs(sum);
      ASSERT_NEAR(result[size_t(r * cols + c)], sum, rounding + 0x1p-24 * (4 + std::sqrt(double(terms))) * magnitudes)
          << what << " " << r << " " << c;
    }
}

// The products of 8-bit operands, exact in float64, and straight-through gradients.
void expect_products_of_codes(const TestDevice& device, const Layer& l, DType type) {
  const std::array<double, 3> scales{0x1p-4, 0x1p-6, 0x1p-10};
  Bench b(device);
  const Tensor scale = b.put(Floats{float(scales[0]), float(scales[1]), float(scales[2])});
  const LayerResult result = run(b, l, {}, scale, true, type);
  const Doubles x = Layer::operand(l.x, DType::e4m3, scales[0]), w = Layer::operand(l.weight, DType::e4m3, scales[1]),
                g = Layer::operand(l.dy, DType::e5m2, scales[2]);
  const int64_t I = l.in, O = l.out;
  expect_product(
      result.y, l.rows, O, I, "y", [&](auto r, auto c, auto k) { return x[size_t(r * I + k)] * w[size_t(c * I + k)]; },
      [&](auto c) { return double(l.bias[size_t(c)]); }, type);
  expect_product(
      result.dx, l.rows, I, O, "dx",
      [&](auto r, auto c, auto k) { return g[size_t(r * O + k)] * w[size_t(k * I + c)]; }, {}, type);
  expect_product(result.dweight, O, I, l.rows, "dW",
                 [&](auto r, auto c, auto k) { return g[size_t(k * O + r)] * x[size_t(k * I + c)]; });
  expect_product(result.dbias, 1, O, l.rows, "db",
                 [&](auto, auto c, auto k) { return double(l.dy[size_t(k * O + c)]); });
  for (const auto& [i, values] : {std::pair{0, &l.x}, {1, &l.weight}, {2, &l.dy}}) {
    float most = 0;
    for (const float v : *values) most = std::max(most, std::abs(v));
    EXPECT_EQ(result.amax[size_t(i)], most) << device.name << " " << i;
  }
  const LayerResult validated = run(b, l, {}, scale, false, type);
  EXPECT_EQ(validated.y, result.y);
  EXPECT_EQ(validated.amax, Floats(3, 0)) << "noted without training";
}

TEST(QuantisedLinear, IsTheExactProductOfCodes) {
  for (const TestDevice& device : update_devices())
    for (const auto& [rows, in, out] : {std::array<int64_t, 3>{1, 1, 1}, {5, 33, 17}, {64, 48, 80}})
      expect_products_of_codes(device, Layer(rows, in, out), DType::f32);
}

// The type that it is trained in. GPUs from sm_89 on, Hopper's twin among them, multiply codes.
TEST(QuantisedLinear, IsTheExactProductOfCodesInBf16) {
  for (const TestDevice& device : test_devices())
    for (const auto& [rows, in, out] : {std::array<int64_t, 3>{5, 33, 17}, {80, 48, 144}})
      expect_products_of_codes(device, Layer(rows, in, out).in_bf16(), DType::bf16);
}

TEST(QuantisedLinear, Int8ByTokenAndChannel) {
  for (const TestDevice& device : update_devices()) {
    Bench b(device);
    const Layer l(9, 70, 21);
    const LayerResult result = run(b, l, {.operands = DType::i8, .gradient = DType::f32, .by_rows = true}, {});
    const auto rounded = [&](const Floats& values, int64_t cols) {
      Doubles q;
      for (size_t i = 0; i < values.size(); i += size_t(cols)) {
        const Floats row(values.begin() + int64_t(i), values.begin() + int64_t(i) + cols);
        float most = 0;
        for (const float v : row) most = std::max(most, std::abs(v));
        for (const float v : row) q.push_back(double(coded(DType::i8, v * (1 / (most / 127)))) * (most / 127));
      }
      return q;
    };
    const Doubles x = rounded(l.x, l.in), w = rounded(l.weight, l.in);
    const int64_t I = l.in, O = l.out;
    expect_product(
        result.y, l.rows, O, I, "y",
        [&](auto r, auto c, auto k) { return x[size_t(r * I + k)] * w[size_t(c * I + k)]; },
        [&](auto c) { return double(l.bias[size_t(c)]); });
    expect_product(result.dx, l.rows, I, O, "dx",
                   [&](auto r, auto c, auto k) { return l.dy[size_t(r * O + k)] * w[size_t(k * I + c)]; });
    expect_product(result.dweight, O, I, l.rows, "dW",
                   [&](auto r, auto c, auto k) { return l.dy[size_t(k * O + r)] * x[size_t(k * I + c)]; });
  }
}

TEST(QuantisedLinear, WhatDoesNotFitIsRefused) {
  Bench b(update_devices().front());
  Tape tape(*b, nullptr, nullptr);
  const Tensor x = b.put(Floats(6)).reshaped({2, 3}), weight = b.put(Floats(12)).reshaped({4, 3});
  EXPECT_THROW(quantised_linear(tape, x, b.put(Floats(8)).reshaped({4, 2}), {}, {}), Error);
  EXPECT_THROW(quantised_linear(tape, x, weight, b.put(Floats(3)), {}), Error);
  EXPECT_THROW(quantised_linear(tape, x, weight, {}, {}, b.put(Floats(2))), Error);
}

}  // namespace
}  // namespace mixtape
