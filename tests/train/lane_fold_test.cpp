// The fixed order of additions: a fold and a tree, whoever makes which part of it.
#include "train/parallel/lane_fold.h"

#include <gtest/gtest.h>

#include <cmath>
#include <optional>

#include "core/base/philox.h"
#include "core/cpu/backend.h"

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

class Device {
 public:
  Device() : memory(1 << 20), arena(memory.data(), memory.bytes()), backend({.threads = 1}) { backend.bind(arena); }
  HostMemory memory;
  Arena arena;
  CpuBackend backend;
};

// What a rank makes of its micro-batches, as backward does: overwritten or added.
std::optional<Values> folded(Device& d, LaneFold& fold, const Tensor& sum, int64_t n, int rank, int ranks) {
  const int64_t first = n * rank / ranks, end = n * (rank + 1) / ranks;
  fold.begin(n, first);
  for (int64_t i = 0; i < end - first; ++i) {
    const Values values = gradients_of(first + i);
    for (int64_t k = 0; k < width; ++k)
      sum.data<float>()[k] = fold.starts_lane(i) ? values[size_t(k)] : sum.data<float>()[k] + values[size_t(k)];
    fold.after(i);
  }
  if (!fold.finish()) return {};
  Values result(width);
  d.backend.copy_to_host(result.data(), sum);
  return result;
}

TEST(LaneFold, IsATreeOfFoldsOnAnyRank) {
  std::vector<int64_t> counts;
  for (int64_t n = 1; n <= 35; ++n) counts.push_back(n);
  for (const int ranks : {1, 2, 4, 8})
    for (int rank = 0; rank < ranks; ++rank) {
      Device d;
      const Tensor sum = d.backend.make({width}, DType::f32);
      LaneFold fold(sum, rank, ranks, counts, d.backend);
      for (const int64_t n : counts)
        EXPECT_EQ(folded(d, fold, sum, n, rank, ranks), tree(n, rank * 8 / ranks, 8 / ranks))
            << n << " micro-batches, rank " << rank << " of " << ranks;
    }
}

// Buffers that wait, besides the one that backward adds to.
int64_t buffers(int64_t n, int ranks) {
  Device d;
  const Tensor sum = d.backend.make({width}, DType::f32);
  const LaneFold fold(sum, 0, ranks, {n}, d.backend);
  return d.arena.by_category()[int(Category::gradients)] / Arena::alignment;
}

TEST(LaneFold, TakesABufferForEachLevelThatWaits) {
  EXPECT_EQ(buffers(1, 1), 0);
  EXPECT_EQ(buffers(2, 1), 1);
  EXPECT_EQ(buffers(4, 1), 2);
  EXPECT_EQ(buffers(8, 1), 3);
  EXPECT_EQ(buffers(64, 1), 3);
  EXPECT_EQ(buffers(64, 2), 2);
  EXPECT_EQ(buffers(64, 4), 1);
  EXPECT_EQ(buffers(64, 8), 0);
}

TEST(LaneFold, RefusesStepsThatItWasNotMadeFor) {
  Device d;
  const Tensor sum = d.backend.make({width}, DType::f32);
  LaneFold fold(sum, 0, 1, {1}, d.backend);
  fold.begin(2, 0);
  EXPECT_THROW(fold.after(0), Error);
  LaneFold first(sum, 0, 2, {8}, d.backend);
  first.begin(8, 4);
  EXPECT_THROW(first.after(0), Error);
}

}  // namespace
}  // namespace mixtape
