// The fixed order of additions: a fold and a tree, whoever makes which part of it.
#include "train/parallel/lane_fold.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>

#include "core/base/error.h"
#include "core/base/philox.h"

namespace mixtape {
namespace {

constexpr int64_t width = 5;
using Values = std::vector<float>;

Values gradients_of(int64_t micro_batch) {
  Values values(width);
  for (int64_t i = 0; i < width; ++i) {
    const auto bits = philox(philox_key(3), uint64_t(micro_batch), uint32_t(i), Purpose::test);
    values[size_t(i)] = normal(bits[0], bits[1]) * std::pow(10.f, float(bits[2] % 5));
  }
  return values;
}

Values plus(Values a, const Values& b) {
  for (size_t i = 0; i < a.size(); ++i) a[i] += b[i];
  return a;
}

// As the header says it: lanes [first, first + lanes) of a step of n micro-batches.
std::optional<Values> tree(int64_t n, int first, int lanes) {
  if (lanes > 1) {
    const auto left = tree(n, first, lanes / 2), right = tree(n, first + lanes / 2, lanes / 2);
    return left && right ? plus(*left, *right) : left ? left : right;
  }
  std::optional<Values> sum;
  for (int64_t i = n * first / 8; i < n * (first + 1) / 8; ++i)
    sum = sum ? plus(*sum, gradients_of(i)) : gradients_of(i);
  return sum;
}

// What an owner makes of its micro-batches, each of whose gradients come alone.
std::optional<Values> folded(LaneFold& fold, int64_t n, int owner, int owners) {
  const int64_t first = n * owner / owners, end = n * (owner + 1) / owners;
  std::array<Values, LaneFold::places> kept;
  std::optional<Values> sum;
  fold.begin(n, first, end - first);
  for (int64_t i = 0; i < end - first; ++i) {
    sum = gradients_of(first + i);
    for (const LaneFold::Move& move : fold.moves(i)) {
      Values& place = kept[size_t(move.place)];
      if (move.kind == LaneFold::Move::add) sum = plus(*sum, place);
      if (move.kind == LaneFold::Move::take) sum = place;
      if (move.kind == LaneFold::Move::keep) place = *sum;
    }
  }
  return sum;
}

TEST(LaneFold, IsATreeOfFoldsOfAnyOwner) {
  for (const int owners : {1, 2, 4, 8})
    for (int owner = 0; owner < owners; ++owner) {
      LaneFold fold(owner, owners);
      for (int64_t n = 1; n <= 35; ++n)
        EXPECT_EQ(folded(fold, n, owner, owners), tree(n, owner * 8 / owners, 8 / owners))
            << n << " micro-batches, owner " << owner << " of " << owners;
    }
}

// Buffers that wait, besides the one that backward writes.
int64_t buffers(int64_t n, int owners) {
  const auto needed = LaneFold::needed(0, owners, {n});
  return std::count(needed.begin(), needed.end(), true);
}

TEST(LaneFold, TakesABufferForTheLaneAndEachLevelThatWaits) {
  EXPECT_EQ(buffers(1, 1), 0);
  EXPECT_EQ(buffers(2, 1), 1);
  EXPECT_EQ(buffers(4, 1), 2);
  EXPECT_EQ(buffers(8, 1), 3);
  EXPECT_EQ(buffers(8, 8), 0);
  EXPECT_EQ(buffers(64, 1), 4);
  EXPECT_EQ(buffers(64, 2), 3);
  EXPECT_EQ(buffers(64, 4), 2);
  EXPECT_EQ(buffers(64, 8), 1);
}

TEST(LaneFold, RefusesAnothersMicroBatches) {
  LaneFold first(0, 2);
  EXPECT_THROW(first.begin(8, 4, 1), Error);
  EXPECT_THROW(first.begin(8, 3, 2), Error);
}

}  // namespace
}  // namespace mixtape
