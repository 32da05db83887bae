// Every code and 4096 hard inputs of each narrow format, bit for bit.
#include "core/base/dtype.h"

#include <gtest/gtest.h>

#include <fstream>
#include <vector>

namespace mixtape {
namespace {

template <class T>
std::vector<T> read(const std::string& name) {
  std::ifstream file(std::string(MIXTAPE_GOLDEN) + "/cast/" + name, std::ios::binary);
  std::vector<char> bytes((std::istreambuf_iterator<char>(file)), {});
  std::vector<T> values(bytes.size() / sizeof(T));
  std::memcpy(values.data(), bytes.data(), values.size() * sizeof(T));
  return values;
}

template <class T>
struct Format;
template <>
struct Format<fp16> {
  static constexpr const char* name = "fp16";
};
template <>
struct Format<bf16> {
  static constexpr const char* name = "bf16";
};
template <>
struct Format<e4m3> {
  static constexpr const char* name = "e4m3fn";
};
template <>
struct Format<e5m2> {
  static constexpr const char* name = "e5m2";
};

template <class T>
class Cast : public testing::Test {};
using Formats = testing::Types<fp16, bf16, e4m3, e5m2>;
TYPED_TEST_SUITE(Cast, Formats);

template <class T, bool saturate>
void expect_rounding() {
  using Code = decltype(T{}.code);
  const std::string suffix = sizeof(Code) == 2 ? ".u16" : ".u8";
  const auto inputs = read<float>("inputs.f32");
  const auto codes = read<Code>(std::string("to_") + Format<T>::name + (saturate ? "_saturating" : "") + suffix);
  ASSERT_EQ(inputs.size(), 4096u);
  ASSERT_EQ(codes.size(), inputs.size());
  for (size_t i = 0; i < inputs.size(); ++i) {
    const Code code = saturate ? T::saturating(inputs[i]).code : T(inputs[i]).code;
    if (std::isnan(inputs[i])) {
      EXPECT_TRUE(std::isnan(float(T::from_code(code)))) << "input " << i;
    } else {
      EXPECT_EQ(code, codes[i]) << "input " << i << " = " << inputs[i];
    }
  }
}

TYPED_TEST(Cast, RoundsToNearestEven) { expect_rounding<TypeParam, false>(); }

TEST(CastSaturating, Fp8) {
  expect_rounding<e4m3, true>();
  expect_rounding<e5m2, true>();
}

TYPED_TEST(Cast, WidensEveryCode) {
  using T = TypeParam;
  using Code = decltype(T{}.code);
  const auto values = read<float>(std::string(Format<T>::name) + "_values.f32");
  ASSERT_EQ(values.size(), size_t(1) << (8 * sizeof(Code)));
  for (size_t i = 0; i < values.size(); ++i) {
    const float value = float(T::from_code(Code(i)));
    if (std::isnan(values[i])) {
      EXPECT_TRUE(std::isnan(value)) << "code " << i;
    } else {
      EXPECT_EQ(std::bit_cast<uint32_t>(value), std::bit_cast<uint32_t>(values[i])) << "code " << i;
    }
  }
}

}  // namespace
}  // namespace mixtape
