// Linear layers of int8 codes: sums against int64 to the bit, results against float64, rows alone and together.
#include <algorithm>
#include <array>
#include <limits>

#include "core/base/code_scale.h"
#include "core/ops/matmul.h"
#include "tests/ops/update_bench.h"

namespace mixtape {
namespace {

using Codes = std::vector<int8_t>;

// From -128, which others' files hold, to 127.
Codes random_codes(int64_t n, uint64_t seed) {
  Codes codes(static_cast<size_t>(n));
  for (size_t i = 0; i < codes.size(); ++i)
    codes[i] = int8_t(philox(philox_key(seed), i, 0, Purpose::test)[0] % 256 - 128);
  return codes;
}

struct Int8Layer {
  int64_t rows, in, out;
  Floats x;
  Codes codes;
  Floats scale, bias;  // no bias: empty
  Unary activation = Unary::none;

  Int8Layer(int64_t rows, int64_t in, int64_t out)
      : rows(rows), in(in), out(out), x(normals(rows * in, 1, 1)), codes(random_codes(out * in, 2)) {
    for (const float s : normals(out, 3)) scale.push_back(std::abs(s) / 100);
  }
  int64_t sum(const std::vector<int>& x_codes, int64_t r, int64_t o) const {
    int64_t sum = 0;
    for (int64_t i = 0; i < in; ++i) sum += x_codes[size_t(r * in + i)] * codes[size_t(o * in + i)];
    return sum;
  }
};

Tensor run(const Bench& b, const Int8Layer& l, const Tensor& x) {
  Tape tape(*b, nullptr, nullptr);
  tape.set_training(false);
  Tensor bias;
  if (!l.bias.empty()) bias = b.put_as(l.bias, x.dtype());
  return linear_int8(tape, x, b.put(l.codes, DType::i8).reshaped({l.out, l.in}), b.put(l.scale), bias, l.activation);
}

Floats read(const Bench& b, const Tensor& t) {
  Floats values;
  dispatch<float, fp16, bf16>(t.dtype(), "test", [&]<class T>() {
    for (const T v : b.get<T>(t)) values.push_back(float(v));
  });
  return values;
}

// Whole numbers with a 127 in each row are their own codes, and with scales of 1 the result is the sum, which float32
// holds exactly up to 2^24 and rounds once beyond.
TEST(LinearInt8, SumsAreExact) {
  for (const TestDevice& device : update_devices())
    for (const auto& [rows, in, out] : {std::array<int64_t, 3>{1, 1, 1},
                                        {1, 16, 5},
                                        {3, 37, 7},
                                        {5, 64, 130},
                                        {9, 4099, 3},
                                        {17, 96, 131},
                                        {21, 70, 20},
                                        {131, 80, 65},
                                        {1030, 9, 3}}) {  // more than the CPU codes at once
      Bench b(device);
      Int8Layer l(rows, in, out);
      const Codes whole = random_codes(rows * in, 4);
      std::vector<int> x_codes;
      for (size_t i = 0; i < whole.size(); ++i) x_codes.push_back(std::max<int>(whole[i], -127));
      for (int64_t r = 0; r < rows; ++r) x_codes[size_t(r * in + r % in)] = r % 2 ? -127 : 127;
      l.x.assign(x_codes.begin(), x_codes.end());
      l.scale.assign(size_t(out), 1.f);
      const Floats y = b.get<float>(run(b, l, b.put(l.x).reshaped({rows, in})));
      for (int64_t r = 0; r < rows; ++r)
        for (int64_t o = 0; o < out; ++o)
          ASSERT_EQ(y[size_t(r * out + o)], float(l.sum(x_codes, r, o)))
              << device.name << " " << rows << " x " << in << " -> " << out << ": " << r << ", " << o;
    }
}

// The largest magnitudes that there are, of both signs: no sum may saturate or wrap, neither of a pair nor of all.
TEST(LinearInt8, SumsOfExtremesAreExact) {
  for (const TestDevice& device : update_devices())
    for (const int64_t rows : {1, 17})
      for (const int64_t in : {int64_t(48), int64_t(1000), most_int8_inputs}) {
        if (rows > 1 && in > 1000 && device.name != "cpu") continue;  // minutes on the emulator
        Bench b(device);
        Int8Layer l(rows, in, 4);
        l.x.assign(size_t(rows * in), 127.f);
        l.scale.assign(4, 1.f);
        for (int64_t i = 0; i < in; ++i) {
          l.codes[size_t(i)] = -128, l.codes[size_t(in + i)] = 127;
          l.codes[size_t(2 * in + i)] = i % 2 ? 127 : -127, l.codes[size_t(3 * in + i)] = i < in / 2 ? -128 : 127;
        }
        const Floats y = b.get<float>(run(b, l, b.put(l.x).reshaped({rows, in})));
        const std::vector<int> x_codes(size_t(rows * in), 127);
        for (int64_t r = 0; r < rows; ++r)
          for (int64_t o = 0; o < 4; ++o)
            ASSERT_EQ(y[size_t(r * 4 + o)], float(l.sum(x_codes, r, o))) << device.name << " " << in << " " << o;
      }
}

class LinearInt8Types : public testing::TestWithParam<DType> {};

TEST_P(LinearInt8Types, IsTheFormulaInFloat64) {
  const DType type = GetParam();
  const double unit = type == DType::f32 ? 0 : type == DType::f16 ? 0x1p-11 : 0x1p-8;
  for (const TestDevice& device : update_devices())
    for (const Unary activation : {Unary::none, Unary::relu, Unary::gelu_tanh})
      for (const auto& [rows, in, out] : {std::array<int64_t, 3>{1, 33, 70}, {2, 64, 9}, {40, 48, 33}}) {
        Bench b(device);
        Int8Layer l(rows, in, out);
        l.bias = normals(out, 5), l.activation = activation;
        for (Floats* values : {&l.x, &l.bias}) *values = read(b, b.put_as(*values, type));
        const Floats y = read(b, run(b, l, b.put_as(l.x, type).reshaped({rows, in})));
        for (int64_t r = 0; r < rows; ++r) {
          float largest = 0;
          for (int64_t i = 0; i < in; ++i) largest = std::max(largest, std::abs(l.x[size_t(r * in + i)]));
          const float s = largest / 127, by = 1 / s;
          std::vector<int> x_codes(l.x.size());
          for (int64_t i = r * in; i < (r + 1) * in; ++i) x_codes[size_t(i)] = int(std::nearbyint(l.x[size_t(i)] * by));
          for (int64_t o = 0; o < out; ++o) {
            const double product = double(s) * double(l.scale[size_t(o)]) * double(l.sum(x_codes, r, o));
            double u = product + double(l.bias[size_t(o)]);
            const double size = std::abs(product) + std::abs(double(l.bias[size_t(o)]));
            if (activation == Unary::relu) u = std::max(u, 0.0);
            if (activation == Unary::gelu_tanh)
              u *= 0.5 * (1 + std::tanh(std::sqrt(2 / M_PI) * (u + 0.044715 * u * u * u)));
            ASSERT_NEAR(y[size_t(r * out + o)], u, 2.5 * unit * size + 0x1p-20 * (size + 1))
                << device.name << " " << int(activation) << ": " << r << ", " << o;
          }
        }
      }
}

// One after another as in decoding, or all at once, in whatever types, on any number of threads.
TEST_P(LinearInt8Types, ARowDoesNotDependOnTheOthers) {
  const DType type = GetParam();
  for (const TestDevice& device : update_devices())
    for (const int64_t in : {48, 45}) {
      Int8Layer l(37, in, 70);
      std::vector<std::byte> first;
      for (const int threads : {1, 2, 4}) {
        Bench b(device, threads);
        const Tensor x = b.put_as(l.x, type).reshaped({37, in});
        const std::vector<std::byte> all = b.bits(run(b, l, x));
        if (first.empty()) first = all;
        ASSERT_EQ(all, first) << device.name << " " << threads;
        if (threads == 2)
          for (const int64_t r : {0, 20, 36}) {
            const std::vector<std::byte> alone = b.bits(run(b, l, x.slice(r, 1)));
            ASSERT_TRUE(std::equal(alone.begin(), alone.end(), all.begin() + r * int64_t(alone.size())))
                << device.name << " " << r;
          }
      }
    }
}

TEST_P(LinearInt8Types, ReadsAndWritesViews) {
  const DType type = GetParam();
  for (const TestDevice& device : update_devices())
    for (const int64_t rows : {3, 19}) {
      Bench b(device);
      Int8Layer l(rows, 40, 21);
      const Tensor wide = b.put_as(l.x, type).reshaped({rows, 40});
      l.in = 33, l.codes.resize(size_t(l.in * l.out));
      const Tensor view = wide.columns(3, 33), whole = (*b).make({rows, 33}, type);
      (*b).cast().convert({.y = {whole, Write::overwrite}, .x = view});
      const Floats expected = read(b, run(b, l, whole));
      const Tensor y = b.put_as(Floats(size_t(rows * 25), 7.f), type).reshaped({rows, 25});
      (*b).matmul().linear_int8({.y = y.columns(2, 21),
                                 .x = view,
                                 .codes = b.put(l.codes, DType::i8).reshaped({21, 33}),
                                 .scale = b.put(l.scale)});
      const Floats all = read(b, y);
      for (int64_t r = 0; r < rows; ++r)
        for (int64_t c = 0; c < 25; ++c)
          ASSERT_EQ(all[size_t(r * 25 + c)], c < 2 || c >= 23 ? 7.f : expected[size_t(r * 21 + c - 2)]) << device.name;
    }
}

TEST_P(LinearInt8Types, WhatIsNotFiniteIsSeenInItsRow) {
  const DType type = GetParam();
  for (const TestDevice& device : update_devices())
    for (const float bad : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
      Bench b(device);
      Int8Layer l(18, 37, 5);
      l.bias = {1, 2, 3, 4, 5};
      std::fill_n(l.x.begin() + 37, 37, 0.f);  // and a row of zeros
      const Floats before = read(b, run(b, l, b.put_as(l.x, type).reshaped({18, 37})));
      l.x[size_t(17 * 37 + 36)] = bad;
      const Floats y = read(b, run(b, l, b.put_as(l.x, type).reshaped({18, 37})));
      for (size_t i = 0; i < y.size(); ++i) {
        if (i >= 17 * 5) {
          ASSERT_TRUE(std::isnan(y[i])) << device.name << " " << i;
          continue;
        }
        ASSERT_EQ(y[i], before[i]) << device.name << " " << i;
        if (i / 5 == 1) {
          ASSERT_EQ(y[i], float(i % 5 + 1)) << device.name;
        }
      }
    }
}

INSTANTIATE_TEST_SUITE_P(Types, LinearInt8Types, testing::Values(DType::f32, DType::f16, DType::bf16),
                         [](const auto& type) { return std::string(name_of(type.param)); });

// What training with int8_qat computes, of weights that are then stored: equal but for the order of float32 additions.
TEST(LinearInt8, IsWhatTrainingSaw) {
  for (const TestDevice& device : update_devices()) {
    Bench b(device);
    const int64_t rows = 9, in = 70, out = 21;
    const Floats x = normals(rows * in, 1, 1), weight = normals(out * in, 2, 1);
    Tape tape(*b, nullptr, nullptr);
    tape.set_training(false);
    const Tensor from = b.put(x).reshaped({rows, in});
    const Floats trained =
        b.get<float>(quantised_linear(tape, from, b.put(weight).reshaped({out, in}), {},
                                      {.operands = DType::i8, .gradient = DType::f32, .by_rows = true}));
    Int8Layer l(rows, in, out);
    for (int64_t o = 0; o < out; ++o) {
      float largest = 0;
      for (int64_t i = 0; i < in; ++i) largest = std::max(largest, std::abs(weight[size_t(o * in + i)]));
      const float s = l.scale[size_t(o)] = code_scale(DType::i8, largest), by = 1 / s;
      for (int64_t i = 0; i < in; ++i)
        l.codes[size_t(o * in + i)] = int8_t(std::nearbyint(weight[size_t(o * in + i)] * by));
    }
    const Floats y = b.get<float>(run(b, l, from));
    float most = 0;
    for (const float v : trained) most = std::max(most, std::abs(v));
    for (size_t i = 0; i < y.size(); ++i) ASSERT_NEAR(y[i], trained[i], 1e-6f * most) << device.name << " " << i;
  }
}

TEST(LinearInt8, WhatDoesNotFitIsRefused) {
  Bench b(update_devices().front());
  Tape tape(*b, nullptr, nullptr);
  tape.set_training(false);
  const Tensor x = b.put(Floats(6)).reshaped({2, 3}), codes = b.put(Codes(12), DType::i8).reshaped({4, 3});
  const Tensor scale = b.put(Floats(4));
  EXPECT_NO_THROW(linear_int8(tape, x, codes, scale, {}));
  EXPECT_THROW(linear_int8(tape, x, b.put(Codes(8), DType::i8).reshaped({4, 2}), scale, {}), Error);
  EXPECT_THROW(linear_int8(tape, x, b.put(Floats(12)).reshaped({4, 3}), scale, {}), Error);
  EXPECT_THROW(linear_int8(tape, x, codes, b.put(Floats(3)), {}), Error);
  EXPECT_THROW(linear_int8(tape, x, codes, b.put(Codes(4), DType::i8), {}), Error);
  EXPECT_THROW(linear_int8(tape, x, codes, scale, b.put(Floats(3))), Error);
  const int64_t many = most_int8_inputs + 1;
  EXPECT_THROW(linear_int8(tape, b.put(Floats(size_t(many))).reshaped({1, many}),
                           b.put(Codes(size_t(many)), DType::i8).reshaped({1, many}), b.put(Floats(1)), {}),
               Error);
  tape.set_training(true);
  EXPECT_THROW(linear_int8(tape, x, codes, scale, {}), Error);
}

}  // namespace
}  // namespace mixtape
