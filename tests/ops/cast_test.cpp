#include "core/ops/cast.h"

#include <bit>
#include <fstream>

#include "core/base/dispatch.h"
#include "tests/support/op_test.h"

namespace mixtape {
namespace {

// Narrowing is held to the bit below; here its gradient, which is the widening's forward.
const OpTest cast_to_fp32{
    .name = "cast to fp32",
    .sizes = {{1, 1}, {3, 37}, {2, 2051}},
    .inputs =
        [](Sizes s) {
          return Inputs{normal({s[0], s[1]})};
        },
    .op = [](Tape& tape, const Tensors& in, Sizes) { return Tensors{cast(tape, in[0], DType::f32)}; },
    .reference = [](const Arrays& in, Sizes) { return Arrays{in[0]}; },
    .types = {DType::f16, DType::bf16},
};
MIXTAPE_OP_TEST(cast_to_fp32);

const OpTest add_test{
    .name = "add",
    .sizes = {{1, 1}, {3, 37}, {5, 768}, {9, 4099}},
    .inputs =
        [](Sizes s) {
          return Inputs{normal({s[0], s[1]}), normal({s[0], s[1]})};
        },
    .op = [](Tape& tape, const Tensors& in, Sizes) { return Tensors{add(tape, in[0], in[1])}; },
    .reference =
        [](const Arrays& in, Sizes) {
          Array y = in[0];
          for (int64_t i = 0; i < y.count(); ++i) y[i] += in[1][i];
          return Arrays{y};
        },
};
MIXTAPE_OP_TEST(add_test);

const OpTest scaled_add_test{
    .name = "add of a multiple",
    .sizes = {{1, 1}, {3, 37}, {9, 4099}},
    .inputs =
        [](Sizes s) {
          return Inputs{normal({s[0], s[1]}), normal({s[0], s[1]})};
        },
    .op = [](Tape& tape, const Tensors& in, Sizes) { return Tensors{add(tape, in[0], in[1], 2.5f)}; },
    .reference =
        [](const Arrays& in, Sizes) {
          Array y = in[0];
          for (int64_t i = 0; i < y.count(); ++i) y[i] += 2.5 * in[1][i];
          return Arrays{y};
        },
};
MIXTAPE_OP_TEST(scaled_add_test);

std::vector<float> golden_inputs() {
  std::ifstream file(std::string(MIXTAPE_GOLDEN) + "/cast/inputs.f32", std::ios::binary);
  const std::vector<char> bytes((std::istreambuf_iterator<char>(file)), {});
  std::vector<float> values(bytes.size() / sizeof(float));
  std::memcpy(values.data(), bytes.data(), values.size() * sizeof(float));
  return values;
}

// What dtype.h says a kernel should write: T from a float, with scale and accumulation in float32.
template <class T>
T narrowed(float value) {
  if constexpr (std::is_same_v<T, float>)
    return std::isnan(value) ? std::bit_cast<float>(std::bit_cast<uint32_t>(value) | 0x400000u) : value;  // made quiet
  else if constexpr (std::is_same_v<T, int8_t>)
    return std::isnan(value) ? 0 : int8_t(std::nearbyint(std::min(127.f, std::max(-127.f, value))));
  else if constexpr (sizeof(T) == 1)
    return std::bit_cast<T>(T::saturating(value).code);
  else
    return T(value);
}

class Conversions : public testing::Test {
 protected:
  Conversions() { backend.bind(arena); }

  template <class From, class To>
  std::vector<To> convert(const std::vector<From>& x, float scale = 1, const std::vector<To>* added_to = nullptr) {
    const int64_t n = int64_t(x.size());
    const Tensor from = backend.make({n}, dtype_of<From>), to = backend.make({n}, dtype_of<To>);
    backend.copy_from_host(from, x.data());
    if (added_to) backend.copy_from_host(to, added_to->data());
    const Write write = added_to ? Write::accumulate : Write::overwrite;
    backend.cast().convert({.y = {to, write}, .x = from, .scale = scale});
    std::vector<To> y(x.size());
    backend.copy_to_host(y.data(), to);
    return y;
  }

  template <class T>
  static uint32_t bits(T value) {
    uint32_t b = 0;
    std::memcpy(&b, &value, sizeof(T));
    return b;
  }

  // fp32 to T over the golden inputs, at lengths and offsets that use whole and partial vectors; NaN included.
  template <class T>
  void expect_narrowing() {
    auto x = golden_inputs();
    ASSERT_EQ(x.size(), 4096u);
    for (float special : {NAN, -NAN, INFINITY, -INFINITY, 3.4e38f, 127.5f, -128.f, 0.5f, 1.5f}) x.push_back(special);
    const auto y = convert<float, T>(x);
    for (size_t i = 0; i < x.size(); ++i)
      ASSERT_EQ(bits(y[i]), bits(narrowed<T>(x[i]))) << name_of(dtype_of<T>) << " input " << i << " = " << x[i];
    for (size_t n : {1, 3, 7, 9, 15, 17}) {
      const std::vector<float> part(x.begin() + 11, x.begin() + 11 + n);
      const auto z = convert<float, T>(part);
      for (size_t i = 0; i < n; ++i) ASSERT_EQ(bits(z[i]), bits(narrowed<T>(part[i]))) << n;
    }
  }

  // Every code of T to fp32.
  template <class T>
  void expect_widening() {
    std::vector<T> codes;
    for (uint32_t c = 0; c < (1u << (8 * sizeof(T))); ++c) codes.push_back(std::bit_cast<T>(decltype(T{}.code)(c)));
    const auto y = convert<T, float>(codes);
    for (size_t i = 0; i < codes.size(); ++i) {
      if (std::isnan(float(codes[i])))
        ASSERT_TRUE(std::isnan(y[i])) << i;
      else
        ASSERT_EQ(bits(y[i]), bits(float(codes[i]))) << name_of(dtype_of<T>) << " code " << i;
    }
  }

  CpuBackend backend;
  HostMemory memory{1 << 22};
  Arena arena{memory.data(), memory.bytes(), Arena::Guards::on};
};

TEST_F(Conversions, NarrowLikeDtype) {
  expect_narrowing<float>();
  expect_narrowing<fp16>();
  expect_narrowing<bf16>();
  expect_narrowing<e4m3>();
  expect_narrowing<e5m2>();
  expect_narrowing<int8_t>();
  EXPECT_TRUE(arena.guard_errors().empty());
}

TEST_F(Conversions, WidenEveryCode) {
  expect_widening<fp16>();
  expect_widening<bf16>();
  expect_widening<e4m3>();
  expect_widening<e5m2>();
  std::vector<int8_t> codes;
  for (int c = -128; c < 128; ++c) codes.push_back(int8_t(c));
  const auto y = convert<int8_t, float>(codes);
  for (size_t i = 0; i < codes.size(); ++i) EXPECT_EQ(y[i], float(codes[i]));
}

TEST_F(Conversions, BetweenNarrowTypesWithScaleAndAccumulation) {
  std::vector<bf16> x;
  std::vector<fp16> before;
  std::vector<e4m3> small;
  for (int i = 0; i < 1500; ++i) {
    x.push_back(bf16(float(std::sin(i * 0.37) * 30)));
    before.push_back(fp16(float(std::cos(i * 0.11))));
    small.push_back(e4m3(float(std::sin(i * 0.53) * 2)));
  }
  const auto sums = convert<bf16, fp16>(x, 0.75f, &before);
  const auto scaled = convert<e4m3, bf16>(small, 3.f);
  const auto quantised = convert<bf16, int8_t>(x, 4.2f);
  for (size_t i = 0; i < x.size(); ++i) {
    ASSERT_EQ(bits(sums[i]), bits(fp16(float(before[i]) + 0.75f * float(x[i])))) << i;
    ASSERT_EQ(bits(scaled[i]), bits(bf16(3.f * float(small[i])))) << i;
    ASSERT_EQ(bits(quantised[i]), bits(narrowed<int8_t>(4.2f * float(x[i])))) << i;
  }
  EXPECT_TRUE(arena.guard_errors().empty());
}

// The largest magnitude of what is converted, unscaled, from the same pass; of a view, too.
TEST_F(Conversions, FindTheLargestMagnitudeByTheWay) {
  const Tensor amax = backend.make({1}, DType::f32);
  for (const int64_t cols : {1, 31, 2500}) {
    const Tensor all = backend.make({3, cols + 5}, DType::bf16), x = all.columns(2, cols);
    for (int64_t i = 0; i < all.count(); ++i) all.data<bf16>()[i] = bf16(i % 2 ? 1e4f : -1e4f);  // beside the view
    for (int64_t r = 0; r < 3; ++r)
      for (int64_t c = 0; c < cols; ++c) x.data<bf16>()[r * x.row_stride() + c] = bf16(float(c % 7));
    x.data<bf16>()[x.row_stride() + cols - 1] = bf16(-300.f);
    const Tensor y = backend.make({3, cols}, DType::e4m3), apart = backend.make({3, cols}, DType::e4m3);
    backend.cast().convert({.y = {y, Write::overwrite}, .x = x, .scale = 0.5f, .amax = amax});
    backend.cast().convert({.y = {apart, Write::overwrite}, .x = x, .scale = 0.5f});
    EXPECT_EQ(*amax.data<float>(), float(bf16(300.f)));
    EXPECT_EQ(std::memcmp(y.raw(), apart.raw(), size_t(y.bytes())), 0);
    x.data<bf16>()[0] = bf16(NAN);
    backend.cast().convert({.y = {y, Write::overwrite}, .x = x, .amax = amax});
    EXPECT_TRUE(std::isnan(*amax.data<float>()));
  }
}

TEST_F(Conversions, OtherTypesAreRefused) {
  EXPECT_THROW((convert<int32_t, float>({1, 2})), Error);
  EXPECT_THROW((convert<float, int64_t>({1, 2})), Error);
}

TEST_F(Conversions, LargestMagnitude) {
  const Tensor amax = backend.make({1}, DType::f32);
  for (const int64_t n : {1, 5, 31, 100000}) {
    const Tensor x = backend.make({n}, DType::bf16);
    bf16* values = x.data<bf16>();
    for (int64_t i = 0; i < n; ++i) values[i] = bf16(float(i % 7));
    values[n - 1] = bf16(-300.f);
    backend.cast().abs_max({.amax = amax, .x = x});
    EXPECT_EQ(*amax.data<float>(), float(bf16(300.f)));
    values[n / 2] = bf16(-INFINITY);
    backend.cast().abs_max({.amax = amax, .x = x});
    EXPECT_EQ(*amax.data<float>(), INFINITY);
    values[0] = bf16(-NAN);
    backend.cast().abs_max({.amax = amax, .x = x});
    EXPECT_TRUE(std::isnan(*amax.data<float>()));
  }
}

}  // namespace
}  // namespace mixtape
