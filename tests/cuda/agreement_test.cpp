// Where the CUDA back end must give the CPU's bits, or its numbers, and the harness does not reach: masks, conversions,
// decoding, views.
#include <bit>
#include <cmath>

#include "core/ops/cast.h"
#include "core/ops/dropout.h"
#include "tests/cuda/device.h"

namespace mixtape {
namespace {

const StepState state{.attempts = 3,
                      .updates = 4,
                      .philox = philox_key(42, 3, 1),
                      .loss_scale = 4,
                      .inverse_targets = 0.25f,
                      .learning_rate = 0.01f};

TEST(Agreement, DropoutMasksAreTheCpusOnes) {
  for (const DType type : {DType::f32, DType::bf16})
    for (const Shape shape : {Shape{1}, Shape{3, 37}, Shape{7, 512}}) {
      std::vector<std::vector<std::byte>> results;
      for (const bool cuda : {false, true}) {
        Device d = cuda ? emulated() : cpu();
        const Tensor x = d.normal(shape, type, 1), y = d.make(shape, type);
        d->dropout().dropout(
            {.y = {y, Write::overwrite}, .x = x, .threshold = 77, .site = 5, .state = d.upload_state(state)});
        results.push_back(d.bits(y));
      }
      EXPECT_EQ(results[0], results[1]) << shape.text();
    }
}

TEST(Agreement, PredictionsOfTheLoss) {
  std::vector<std::vector<int32_t>> results;
  const std::vector<int32_t> ids{3, -1, 699, 0, 5, -1};
  for (const bool cuda : {false, true}) {
    Device d = cuda ? emulated() : cpu();
    const Tensor hidden = d.normal({6, 8}, DType::f32, 1), weight = d.normal({700, 8}, DType::f32, 2);
    const Tensor targets = d.make({6}, DType::i32), predictions = d.make({6}, DType::i32);
    d->copy_from_host(targets, ids.data());
    d->loss().cross_entropy({.mean = d.make({1}, DType::f32),
                             .row_loss = d.make({6}, DType::f32),
                             .predictions = predictions,
                             .hidden = hidden,
                             .weight = weight,
                             .targets = targets,
                             .spec = {.chunk_rows = 4, .predict = true},
                             .state = d.upload_state(state)});
    results.push_back(d.values<int32_t>(predictions));
  }
  EXPECT_EQ(results[0], results[1]);
  EXPECT_EQ(results[0][1], -1);
  EXPECT_GE(results[0][0], 0);
}

// Of a view, each with what lies beside it.
TEST(Agreement, DropoutOfViews) {
  std::vector<std::vector<float>> results;
  for (const bool cuda : {false, true}) {
    Device d = cuda ? emulated() : cpu();
    const Tensor x = d.normal({5, 40}, DType::f32, 1), y = d.normal({5, 40}, DType::f32, 2);
    d->dropout().dropout({.y = {y.columns(3, 21), Write::accumulate},
                          .x = x.columns(3, 21),
                          .threshold = 77,
                          .site = 5,
                          .state = d.upload_state(state)});
    results.push_back(d.values<float>(y));
  }
  EXPECT_EQ(results[0], results[1]);
}

// Numbers of all sizes, infinities and NaN, at an odd length.
std::vector<float> hard_numbers() {
  std::vector<float> x;
  for (int i = 0; i < 1003; ++i) x.push_back((i % 2 ? 1.f : -1.f) * std::ldexp(1.f + float(i % 7) / 8, i % 40 - 20));
  x[500] = NAN, x[501] = INFINITY, x[502] = -INFINITY;
  return x;
}

struct Converted {
  std::vector<std::byte> bits;
  std::vector<float> values;  // widened by the CPU
};
Converted convert(const Device& d, DType from, DType to, float scale, Write write) {
  const Tensor wide = d.upload(hard_numbers()), x = d.make(wide.shape(), from), y = d.make(wide.shape(), to);
  const Tensor ones = d.upload(std::vector<float>(size_t(wide.count()), 1));
  const Device host = cpu();
  const auto narrow = [&](const Tensor& t, const Tensor& values) {  // by the CPU, so that both begin alike
    host->cast().convert({.y = {t, Write::overwrite}, .x = values});
  };
  narrow(x, wide);
  narrow(y, ones);
  d->cast().convert({.y = {y, write}, .x = x, .scale = scale});
  const Tensor back = d.make(wide.shape(), DType::f32);
  narrow(back, y);
  return {d.bits(y), d.values<float>(back)};
}

TEST(Agreement, Conversions) {
  const std::vector<DType> wide = {DType::f32, DType::f16, DType::bf16}, narrow = {DType::e4m3, DType::e5m2, DType::i8};
  for (const auto& [sources, targets] : {std::pair{wide, wide}, {wide, narrow}, {narrow, wide}})
    for (const DType from : sources)
      for (const DType to : targets)
        for (const auto& [scale, write] : {std::pair{0.75f, Write::overwrite}, {1.f, Write::accumulate}}) {
          const Converted want = convert(cpu(), from, to, scale, write),
                          got = convert(emulated(), from, to, scale, write);
          const size_t size = size_t(size_of(to));
          for (size_t i = 0; i < want.values.size(); ++i) {
            if (std::isnan(want.values[i]) && std::isnan(got.values[i])) continue;  // its payload is the device's
            ASSERT_EQ(std::memcmp(&want.bits[size * i], &got.bits[size * i], size), 0)
                << name_of(from) << " to " << name_of(to) << " element " << i << ": " << got.values[i] << ", expected "
                << want.values[i];
          }
        }
}

TEST(Agreement, ConversionsThatDoNotExistAreRefused) {
  Device d = emulated();
  const Tensor a = d.make({4}, DType::i8), b = d.make({4}, DType::e4m3), c = d.make({4}, DType::i32);
  EXPECT_THROW(d->cast().convert({.y = {a, Write::overwrite}, .x = b}), Error);
  EXPECT_THROW(d->cast().convert({.y = {c, Write::overwrite}, .x = b}), Error);
}

TEST(Agreement, LargestMagnitude) {
  Device d = emulated();
  const Tensor amax = d.make({1}, DType::f32);
  const auto largest = [&](const std::vector<bf16>& x) {
    d->cast().abs_max({.amax = amax, .x = d.upload(x)});
    return d.values<float>(amax)[0];
  };
  for (const size_t n : {1, 5, 31, 20000}) {
    std::vector<bf16> x(n, bf16(3.f));
    x[n - 1] = bf16(-300.f);
    EXPECT_EQ(largest(x), float(bf16(300.f)));
    x[n / 2] = bf16(-INFINITY);
    EXPECT_EQ(largest(x), INFINITY);
    x[0] = bf16(-NAN);
    EXPECT_TRUE(std::isnan(largest(x)));
  }
  const Tensor wide = d.normal({6, 50}, DType::f32, 3);
  d->cast().abs_max({.amax = amax, .x = wide.columns(7, 20)});
  float most = 0;
  for (size_t r = 0; r < 6; ++r)
    for (size_t c = 7; c < 27; ++c) most = std::max(most, std::abs(d.values<float>(wide)[r * 50 + c]));
  EXPECT_EQ(d.values<float>(amax)[0], most);
}

// By the way of a conversion: the same number, the same result.
TEST(Agreement, ConversionsFindTheLargestMagnitude) {
  for (const DType to : {DType::e4m3, DType::e5m2, DType::i8, DType::bf16})
    for (const auto& [cols, columns] : {std::pair<int64_t, int64_t>{6000, 6000}, {37, 20}, {1, 1}}) {
      Device d = emulated();
      const Tensor all = d.normal({5, cols}, DType::f32, 1), x = all.columns(cols - columns, columns);
      const Tensor y = d.make({5, columns}, to), apart = d.make({5, columns}, to);
      const Tensor amax = d.make({1}, DType::f32), expected = d.make({1}, DType::f32);
      d->cast().convert({.y = {y, Write::overwrite}, .x = x, .scale = 40, .amax = amax});
      d->cast().convert({.y = {apart, Write::overwrite}, .x = x, .scale = 40});
      d->cast().abs_max({.amax = expected, .x = x});
      EXPECT_EQ(d.bits(amax), d.bits(expected));
      EXPECT_EQ(d.bits(y), d.bits(apart));
    }
  Device d = emulated();
  EXPECT_THROW(d->cast().convert({.y = {d.make({4}, DType::f32), Write::overwrite},
                                  .x = d.make({4}, DType::e4m3),
                                  .amax = d.make({1}, DType::f32)}),
               Error);
}

// Decoding: every row as linear gives it, whatever other rows there are.
TEST(Agreement, FewRowsOfALinearLayer) {
  Device d = emulated();
  for (const DType type : {DType::f32, DType::bf16})
    for (const auto& [in, out] : {std::pair<int64_t, int64_t>{1, 1}, {37, 67}, {256, 40}}) {
      const Tensor x = d.normal({9, in}, type, 1), weight = d.normal({out, in}, type, 2, 1 / std::sqrt(double(in)));
      const Tensor bias = d.normal({out}, type, 3), whole = d.make({9, out}, type), few = d.make({9, out}, type);
      const Unary kind = Unary::gelu_tanh;
      d->matmul().linear({.y = whole, .x = x, .weight = weight, .bias = bias, .activation = kind});
      d->matmul().linear_rows({.y = few, .x = x, .weight = weight, .bias = bias, .activation = kind});
      dispatch<float, bf16>(type, "test", [&]<class T>() {
        const auto a = d.values<T>(whole), b = d.values<T>(few);
        for (size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(float(a[i]), float(b[i]), 8 * roundoff(type) + 1e-5) << i;
      });
      for (int64_t rows : {1, 4}) {
        const Tensor y = d.make({rows, out}, type);
        d->matmul().linear_rows(
            {.y = y, .x = x.slice(9 - rows, rows), .weight = weight, .bias = bias, .activation = kind});
        EXPECT_EQ(d.bits(y), d.bits(few.slice(9 - rows, rows)));
      }
    }
}

// Extremes of the activations: nothing overflows on the way, NaN stays NaN.
TEST(Agreement, ExtremesOfActivations) {
  Device d = emulated();
  const std::vector<float> in = {0.f, -0.f, 30.f, -30.f, 1e30f, -1e30f, 1e-40f, NAN};
  for (const Unary kind : {Unary::relu, Unary::gelu, Unary::gelu_tanh, Unary::silu}) {
    const Tensor x = d.upload(in), y = d.make({8}, DType::f32), dy = d.upload(std::vector<float>(8, 1)),
                 dx = d.make({8}, DType::f32);
    d->activation().activation({.y = y, .x = x, .kind = kind});
    d->activation().activation_backward({.dx = {dx, Write::overwrite}, .dy = dy, .x = x, .kind = kind});
    const auto v = d.values<float>(y), s = d.values<float>(dx);
    EXPECT_EQ(v[0], 0);
    EXPECT_EQ(v[2], 30);
    EXPECT_NEAR(v[3], 0, 1e-11);
    EXPECT_EQ(v[4], 1e30f);
    EXPECT_EQ(v[5], 0);
    EXPECT_TRUE(std::isnan(v[7]));
    EXPECT_EQ(s[0], kind == Unary::relu ? 0.f : 0.5f);
    EXPECT_EQ(s[4], 1);
    EXPECT_EQ(s[5], 0);
  }
  EXPECT_THROW(d->activation().activation({.y = d.make({8}, DType::f32), .x = d.upload(in), .kind = Unary::none}),
               Error);
}

// Loss: rows without a target, no target at all, logits that are not finite, a target outside.
TEST(Agreement, Losses) {
  Device d = emulated();
  struct Results {
    std::vector<float> mean, losses, dhidden, dweight;
  };
  const auto run = [&](std::vector<int32_t> targets, Write write, float hidden_value) {
    const auto rows = int64_t(targets.size());
    const Tensor hidden = d.upload(std::vector<float>(size_t(rows * 4), hidden_value), {rows, 4});
    const Tensor weight = d.normal({10, 4}, DType::f32, 1), mean = d.make({1}, DType::f32),
                 losses = d.make({rows}, DType::f32);
    const Tensor dhidden = d.upload(std::vector<float>(size_t(rows * 4), 3.f), {rows, 4}),
                 dweight = d.upload(std::vector<float>(40, 3.f), {10, 4});
    d->loss().cross_entropy({.mean = mean,
                             .row_loss = losses,
                             .dhidden = {dhidden, write},
                             .dweight = {dweight, write},
                             .hidden = hidden,
                             .weight = weight,
                             .targets = d.upload(targets),
                             .spec = {.chunk_rows = 2},
                             .state = d.upload_state(state)});
    return Results{d.values<float>(mean), d.values<float>(losses), d.values<float>(dhidden), d.values<float>(dweight)};
  };
  const Results zero = run({-1, -1, -1}, Write::overwrite, 1), kept = run({-1, -1, -1}, Write::accumulate, 1);
  EXPECT_EQ(zero.mean, std::vector<float>(1, 0.f));
  EXPECT_EQ(zero.dhidden, std::vector<float>(12, 0.f));
  EXPECT_EQ(zero.dweight, std::vector<float>(40, 0.f));
  EXPECT_EQ(kept.dhidden, std::vector<float>(12, 3.f));
  EXPECT_EQ(kept.dweight, std::vector<float>(40, 3.f));
  EXPECT_EQ(run({4, -1, 9}, Write::overwrite, 1).losses[1], 0);
  EXPECT_TRUE(std::isfinite(run({1, 2}, Write::overwrite, 1e4f).mean[0]));
  for (const float bad : {NAN, INFINITY}) EXPECT_FALSE(std::isfinite(run({4, 2}, Write::overwrite, bad).mean[0]));
  EXPECT_THROW(run({10}, Write::overwrite, 1), Error);
}

}  // namespace
}  // namespace mixtape
