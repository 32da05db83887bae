// Philox 4x32-10 against the known answers of its authors (Random123, kat_vectors).
#include "core/base/philox.h"

#include <gtest/gtest.h>

namespace mixtape {
namespace {

TEST(Philox, KnownAnswers) {
  EXPECT_EQ(philox({0, 0}, 0, 0, Purpose(0)),
            (std::array<uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox({0xffffffff, 0xffffffff}, 0xffffffffffffffff, 0xffffffff, Purpose(0xffffffff)),
            (std::array<uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox({0xa4093822, 0x299f31d0}, 0x85a308d3243f6a88, 0x13198a2e, Purpose(0x03707344)),
            (std::array<uint32_t, 4>{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Philox, NormalHasUnitVariance) {
  double sum = 0, squares = 0;
  constexpr int n = 100000;
  for (int i = 0; i < n; ++i) {
    const auto bits = philox(philox_key(1), uint64_t(i), 0, Purpose::test);
    const double x = normal(bits[0], bits[1]);
    sum += x, squares += x * x;
  }
  // Three standard errors of the mean and of the variance.
  EXPECT_NEAR(sum / n, 0, 3 / std::sqrt(n));
  EXPECT_NEAR(squares / n, 1, 3 * std::sqrt(2.0 / n));
}

}  // namespace
}  // namespace mixtape
