// What a product of the library does beside: activations, the sums before them, sums of an operand, tf32. Here the
// emulator's twin stands for the library, and what chooses between epilogues and kernels is the real thing.
#include "cuda/products.h"

#include <cmath>

#include "core/ops/matmul.h"
#include "tests/cuda/device.h"

namespace mixtape {
namespace {

struct Layer {
  Tensor x, weight, bias, y, pre;
};
Layer layer(const Device& d, DType type, int64_t rows, int64_t in, int64_t out) {
  return {.x = d.normal({rows, in}, type, 1),
          .weight = d.normal({out, in}, type, 2, 1 / std::sqrt(double(in))),
          .bias = d.normal({out}, type, 3),
          .y = d.make({rows, out}, type),
          .pre = d.make({rows, out}, type)};
}

// Where y is made again from `pre`, it has the bits that this gives; elsewhere the activation sees the sum before it is
// rounded, which is as near.
TEST(Products, ActivationsAreFusedWhereNothingIsMadeAgain) {
  for (const DType type : {DType::f32, DType::bf16}) {
    Device d = emulated();
    const Layer l = layer(d, type, 19, 24, 40);
    Linear a{.y = l.y, .pre = l.pre, .x = l.x, .weight = l.weight, .bias = l.bias, .activation = Unary::gelu_tanh};
    const Tensor again = d.make(l.y.shape(), type);
    const auto run = [&](bool remade) {
      a.y_is_remade = remade;
      d->matmul().linear(a);
      d->activation().activation({.y = again, .x = l.pre, .kind = a.activation});
      return std::pair{d.bits(l.y), d.bits(l.pre)};
    };
    const auto [remade, sums] = run(true);
    EXPECT_EQ(remade, d.bits(again));
    const auto [fused, same_sums] = run(false);
    EXPECT_EQ(same_sums, sums);
    EXPECT_EQ(fused == remade, type == DType::f32);  // nothing is rounded in between there
    dispatch<float, bf16>(type, "test", [&]<class T>() {
      const std::vector<T> y = d.values<T>(l.y), from_pre = d.values<T>(again);
      for (size_t i = 0; i < y.size(); ++i)
        ASSERT_NEAR(float(y[i]), float(from_pre[i]), 4 * roundoff(type) * (1 + std::abs(float(y[i])))) << i;
    });
  }
}

TEST(Products, TakeWhatTheEpiloguesHave) {
  Device d = emulated();
  const Layer l = layer(d, DType::bf16, 16, 24, 40);
  const cuda::Product plain{.c = l.y, .a = l.x, .b = l.weight, .bias = l.bias, .transpose_b = true};
  const auto takes = [&](auto change) {
    cuda::Product p = plain;
    change(p);
    return cuda::extras_fit(p);
  };
  EXPECT_TRUE(takes([](cuda::Product&) {}));
  EXPECT_TRUE(takes([](cuda::Product& p) { p.activation = Unary::relu; }));
  EXPECT_TRUE(takes([](cuda::Product& p) { p.activation = Unary::gelu_tanh; }));
  EXPECT_TRUE(takes([&](cuda::Product& p) { p.activation = Unary::gelu_tanh, p.pre = l.pre; }));
  EXPECT_FALSE(takes([&](cuda::Product& p) { p.activation = Unary::relu, p.pre = l.pre; })) << "it would keep bits";
  for (const Unary kind : {Unary::gelu, Unary::silu, Unary::tanh})
    EXPECT_FALSE(takes([&](cuda::Product& p) { p.activation = kind; }));
  EXPECT_FALSE(takes([](cuda::Product& p) { p.activation = Unary::relu, p.bias = {}, p.accumulate = true; }));
  // Rows of 44 elements, and an address 8 bytes off.
  const Tensor wide = d.make({16, 44}, DType::bf16), wider = d.make({16, 48}, DType::bf16);
  EXPECT_FALSE(takes([&](cuda::Product& p) { p.activation = Unary::gelu_tanh, p.pre = wide.columns(0, 40); }));
  EXPECT_FALSE(takes([&](cuda::Product& p) { p.activation = Unary::gelu_tanh, p.pre = wider.columns(4, 40); }));
  EXPECT_TRUE(takes([&](cuda::Product& p) { p.activation = Unary::gelu_tanh, p.pre = wider.columns(8, 40); }));
  // Sums of an operand have the result's type, and no company.
  const Tensor sums = d.make({16}, DType::bf16), float_sums = d.make({16}, DType::f32);
  EXPECT_TRUE(takes([&](cuda::Product& p) { p.bias = {}, p.a_sums = sums; }));
  EXPECT_TRUE(takes([&](cuda::Product& p) { p.bias = {}, p.a_sums = sums, p.accumulate = true; }));
  EXPECT_FALSE(takes([&](cuda::Product& p) { p.bias = {}, p.a_sums = float_sums; }));
  EXPECT_FALSE(takes([&](cuda::Product& p) { p.a_sums = sums; }));
}

// The bias's gradient comes with that of the weights, from the same du; alone it is a kernel's. Stored or added.
TEST(Products, TheGradientOfABiasIsTheSameFromEitherPlace) {
  for (const DType type : {DType::f32, DType::bf16})
    for (const Write write : {Write::overwrite, Write::accumulate})
      for (const DType of_bias : {DType::f32, DType::bf16}) {
        Device d = emulated();
        const Layer l = layer(d, type, 37, 24, 40);
        const Tensor dy = d.normal(l.y.shape(), type, 5), pre = d.normal(l.y.shape(), type, 6);
        const auto gradient = [&](bool with_weights) {
          const Tensor dbias = d.normal({40}, of_bias, 7), dweight = d.normal({40, 24}, DType::f32, 8);
          d->matmul().linear_backward({.dweight = {dweight, with_weights ? write : Write::none},
                                       .dbias = {dbias, write},
                                       .dy = dy,
                                       .pre = pre,
                                       .x = l.x,
                                       .weight = l.weight,
                                       .activation = Unary::gelu_tanh});
          std::vector<float> values;
          dispatch<float, bf16>(of_bias, "test", [&]<class T>() {
            for (const T x : d.values<T>(dbias)) values.push_back(float(x));
          });
          return values;
        };
        const std::vector<float> with = gradient(true), alone = gradient(false);
        for (size_t i = 0; i < with.size(); ++i)
          ASSERT_NEAR(with[i], alone[i], (1 + std::abs(alone[i])) * (2 * roundoff(of_bias) + 1e-6)) << i;
      }
}

// With tf32 operands have 10 bits of mantissa and sums are float32; types of 16 bits are as without.
TEST(Products, Tf32RoundsOperandsAndNothingElse) {
  const auto product = [](bool tf32, DType type, float a, float b) {
    emulator::set_seed(1);
    Device d(std::make_unique<CudaBackend>(CudaOptions{.tf32 = tf32}));
    const auto filled = [&](float value) {
      const Tensor t = d.make({1, 4}, type);
      dispatch<float, bf16>(type, "test", [&]<class T>() { d->copy_from_host(t, std::vector<T>(4, T(value)).data()); });
      return t;
    };
    const Tensor y = d.make({1, 1}, DType::f32);
    auto& products = static_cast<CudaBackend&>(*d).products();
    const Tensor scratch = d.make({std::max<int64_t>(products.workspace_bytes(), 1)}, DType::u8);
    products.multiply({.c = y, .a = filled(a), .b = filled(b), .transpose_b = true}, scratch);
    return d.values<float>(y)[0];
  };
  const float x = 1 + 0x1p-11f + 0x1p-20f;
  EXPECT_EQ(product(false, DType::f32, x, 1), 4 * x);
  EXPECT_EQ(product(true, DType::f32, x, 1), 4 * (1 + 0x1p-10f));  // to nearest
  EXPECT_EQ(product(true, DType::f32, 1 + 0x1p-11f, 1), 4.f);      // a tie, to even
  EXPECT_EQ(product(true, DType::f32, -x, x), -4 * (1 + 0x1p-10f) * (1 + 0x1p-10f));
  EXPECT_EQ(product(true, DType::bf16, 1.0078125f, 3), product(false, DType::bf16, 1.0078125f, 3));
}

// A layer of bf16 with 8-bit operands on a GPU that multiplies codes, and on one that does not. Scales are powers of
// two, so that neither way rounds but in the result, and the twins of both add in the same order.
struct CodesCase {
  int64_t rows, in, out;
  bool known = true;  // scales
  Write write = Write::overwrite;
  float first = 1;  // of x
};
struct CodesRun {
  std::vector<std::byte> y, dx, dweight, amax;
  bool of_codes = false, of_codes_backward = false;
  friend bool operator==(const CodesRun& a, const CodesRun& b) {
    return a.y == b.y && a.dx == b.dx && a.dweight == b.dweight && a.amax == b.amax;
  }
};
CodesRun run(Device d, const CodesCase& c) {
  const Layer l = layer(d, DType::bf16, c.rows, c.in, c.out);
  const bf16 first(c.first);
  d->copy_from_host(Tensor(l.x.raw(), {1}, DType::bf16), &first);
  const Tensor dy = d.normal({c.rows, c.out}, DType::bf16, 4, 1e-4), scale = d.make({3}, DType::f32),
               amax = d.make({3}, DType::f32), dx = d.normal({c.rows, c.in}, DType::bf16, 5),
               dweight = d.normal({c.out, c.in}, DType::f32, 6);
  const std::vector<float> scales = c.known ? std::vector<float>{0x1p-7f, 0x1p-9f, 0x1p-26f} : std::vector<float>(3);
  d->copy_from_host(scale, scales.data());
  d->zero(amax);
  const OperandCodes codes;
  CodesRun r;
  r.of_codes = d->matmul().linear_of_codes(
      {.y = l.y, .x = l.x, .weight = l.weight, .bias = l.bias, .scale = scale, .amax = amax, .codes = codes});
  const Grad to_x{dx, c.write}, to_weight{dweight, c.write};
  r.of_codes_backward = d->matmul().linear_of_codes_backward({.dx = to_x,
                                                              .dweight = to_weight,
                                                              .dy = dy,
                                                              .x = l.x,
                                                              .weight = l.weight,
                                                              .scale = scale,
                                                              .amax = amax,
                                                              .codes = codes});
  const auto rounded = [&](const Tensor& t, int which, DType type) {
    const Tensor to = d.make(t.shape(), t.dtype());
    d->cast().quantise(
        {.y = to, .x = t, .codes = type, .scale = scale.columns(which, 1), .amax = amax.columns(which, 1)});
    return to;
  };
  if (!r.of_codes)
    d->matmul().linear(
        {.y = l.y, .x = rounded(l.x, 0, DType::e4m3), .weight = rounded(l.weight, 1, DType::e4m3), .bias = l.bias});
  if (!r.of_codes_backward)
    d->matmul().linear_backward({.dx = to_x,
                                 .dweight = to_weight,
                                 .dy = rounded(dy, 2, DType::e5m2),
                                 .x = rounded(l.x, 0, DType::e4m3),
                                 .weight = rounded(l.weight, 1, DType::e4m3)});
  r.y = d.bits(l.y), r.dx = d.bits(dx), r.dweight = d.bits(dweight), r.amax = d.bits(amax);
  return r;
}

TEST(ProductsOfCodes, GiveWhatRoundedOperandsGive) {
  const emulator::DeviceProperties ada{.compute_capability = 89};
  for (const CodesCase& c : {CodesCase{16, 16, 16},
                             {80, 144, 48},
                             {80, 144, 48, false},
                             {48, 64, 128, true, Write::accumulate},
                             {16, 32, 16, false, Write::overwrite, 0}}) {
    const CodesRun codes = run(emulated(1, ada), c), rounded = run(emulated(), c);
    EXPECT_TRUE(codes.of_codes && codes.of_codes_backward);
    EXPECT_FALSE(rounded.of_codes || rounded.of_codes_backward);
    EXPECT_EQ(codes, rounded) << c.rows << " x " << c.in << " -> " << c.out << (c.known ? "" : ", first step");
    EXPECT_EQ(run(emulated(2, ada), c), codes) << "not the same bits twice";
  }
}

// Rows that are no multiple of 16, and addresses that are none of 16 bytes, go the other way.
TEST(ProductsOfCodes, WhatDoesNotFitIsLeft) {
  const emulator::DeviceProperties ada{.compute_capability = 89};
  for (const CodesCase& c : {CodesCase{24, 16, 16}, {16, 24, 16}, {16, 16, 40}}) {
    const CodesRun r = run(emulated(1, ada), c);
    EXPECT_FALSE(r.of_codes || r.of_codes_backward);
    EXPECT_EQ(r, run(emulated(), c));
  }
}

// In x, W or dy alike: a step whose result would hide it would be applied.
TEST(ProductsOfCodes, WhatIsNotFiniteShows) {
  for (const float bad : {INFINITY, -INFINITY, float(NAN)}) {
    Device d = emulated_hopper();
    const Layer l = layer(d, DType::bf16, 16, 16, 16);
    const bf16 first(bad);
    d->copy_from_host(Tensor(l.x.raw(), {1}, DType::bf16), &first);
    ASSERT_TRUE(d->matmul().linear_of_codes({.y = l.y, .x = l.x, .weight = l.weight, .codes = {}}));
    const std::vector<bf16> y = d.values<bf16>(l.y);
    for (size_t i = 0; i < 32; ++i) EXPECT_EQ(std::isnan(float(y[i])), i < 16) << i;
  }
}

}  // namespace
}  // namespace mixtape
