// Rounding by chance: to a neighbour, right in the mean; and AdamW on 16-bit weights that have no float32 copy.
#include "core/ops/stochastic_rounding.h"

#include <limits>

#include "tests/ops/optimizer_support.h"

namespace mixtape {
namespace {

constexpr uint32_t all_numbers = 1 << 16;

// Over all random numbers: one or both of the neighbours, and x in the mean.
template <class T>
void expect_fair(float x, double resolution) {
  const float low = float(round_stochastically<T>(x, 0)), high = float(round_stochastically<T>(x, all_numbers - 1));
  double sum = 0;
  for (uint32_t r = 0; r < all_numbers; ++r) {
    const float y = float(round_stochastically<T>(x, r));
    ASSERT_TRUE(y == low || y == high) << x << " " << r;
    sum += double(y) - x;
  }
  EXPECT_LE(std::abs(sum / all_numbers), resolution * std::abs(double(high) - low)) << x;
  EXPECT_LE(std::abs(low), std::abs(x));
  EXPECT_EQ(low == high, float(T(x)) == x) << x;
  // Neighbours: nothing of the type lies between them.
  T next;
  next.code = decltype(next.code)(round_stochastically<T>(x, 0).code + 1);
  EXPECT_EQ(low == high ? low : float(next), high) << x;
}

TEST(StochasticRounding, IsRightInTheMean) {
  for (const float x : {1.f, 1.0001f, -3.14159f, 0.999999f, 1e-5f, 6.1e-5f, -2.5e-3f, 65503.f, 4097.25f}) {
    expect_fair<fp16>(x, 0);
    expect_fair<bf16>(x, 0);
  }
  for (const float x : {3e38f, 1e-38f, 1e-40f, -1.4e-45f}) expect_fair<bf16>(x, 0);
  for (const float x : {3e-8f, -1e-7f, 5.9e-8f}) expect_fair<fp16>(x, 0x1p-16);  // its subnormals
}

TEST(StochasticRounding, EndsOfTheRange) {
  for (const uint32_t r : {0u, 0x8000u, 0xffffu}) {
    EXPECT_EQ(float(round_stochastically<fp16>(65510.f, r)), 65504.f);
    EXPECT_EQ(float(round_stochastically<fp16>(-65520.f, r)), -INFINITY);
    EXPECT_EQ(float(round_stochastically<fp16>(1e30f, r)), INFINITY);
    EXPECT_EQ(float(round_stochastically<bf16>(INFINITY, r)), INFINITY);
    EXPECT_TRUE(std::isnan(float(round_stochastically<bf16>(NAN, r))));
    EXPECT_EQ(float(round_stochastically<bf16>(std::numeric_limits<float>::max(), r)), INFINITY);
    EXPECT_EQ(float(round_stochastically<fp16>(1e-30f, r)), 0.f);
    EXPECT_TRUE(std::signbit(float(round_stochastically<fp16>(-1e-30f, r))));
  }
}

class WithoutMaster : public OptimizerFixture {
 protected:
  // One step on n weights that are `start`, all gradients 1: a step of lr downwards.
  Tensor step(float start, int64_t n, const UpdateRange& range, uint64_t seed = 3) {
    const Tensor w = upload(Floats(size_t(n), start), DType::bf16), m = upload(Floats(size_t(n))),
                 v = upload(Floats(size_t(n)));
    adamw(backend, {.state = &state,
                    .weights = w,
                    .gradients = upload(Floats(size_t(n), 1.f)),
                    .m = m,
                    .v = v,
                    .ranges = &range,
                    .n_ranges = 1,
                    .beta1 = 0.9f,
                    .beta2 = 0.95f,
                    .eps = 1e-8f,
                    .seed = seed});
    return w;
  }
  static std::vector<uint16_t> codes(const Tensor& t, int64_t offset, int64_t n) {
    const auto* data = t.data<bf16>() + offset;
    std::vector<uint16_t> c;
    for (int64_t i = 0; i < n; ++i) c.push_back(data[i].code);
    return c;
  }
};

// A step of 1/39 of the weight's last place. To nearest it would be lost, every time.
TEST_F(WithoutMaster, StepsBelowTheLastPlaceAreKeptInTheMean) {
  state.learning_rate = 1e-4f;
  constexpr int64_t n = 65536;
  const Tensor w = step(1.f, n, {0, n});
  double moved = 0;
  for (int64_t i = 0; i < n; ++i) {
    const float x = float(w.data<bf16>()[i]);
    ASSERT_TRUE(x == 1.f || x == 1.f - 0x1p-8f);
    moved += 1.0 - x;
  }
  EXPECT_NEAR(moved / n, 1e-4, 5 * 0x1p-8 * std::sqrt(1e-4 * 256 / n));  // five standard deviations
  EXPECT_EQ(float(bf16(1.f - 1e-4f)), 1.f);
}

// The numbers follow seed, attempt, parameter and element: not where in a buffer, in which pieces, by which threads.
TEST_F(WithoutMaster, BitsFollowTheParameterAlone) {
  state = {.attempts = 5, .learning_rate = 1e-3f};
  constexpr int64_t n = 4099, total = n + 1000;
  const UpdateRange whole{.offset = 0, .count = n, .parameter = 7};
  const auto expected = codes(step(1.f, total, whole), 0, n);
  for (const int threads : {1, 2, 4}) {
    set_thread_count(threads);
    EXPECT_EQ(codes(step(1.f, total, whole), 0, n), expected);
  }
  UpdateRange moved = whole;
  moved.offset = 333;
  EXPECT_EQ(codes(step(1.f, total, moved), 333, n), expected);
  for (const int64_t first : {1, 8, 1027}) {  // as if another rank had what is before
    const UpdateRange part{.offset = 64, .count = n - first, .parameter = 7, .first = first};
    EXPECT_EQ(codes(step(1.f, total, part), 64, n - first),
              (std::vector<uint16_t>(expected.begin() + first, expected.end())));
  }
  UpdateRange other = whole;
  other.parameter = 8;
  EXPECT_NE(codes(step(1.f, total, other), 0, n), expected);
  EXPECT_NE(codes(step(1.f, total, whole, 4), 0, n), expected);
  state.attempts = 6;
  EXPECT_NE(codes(step(1.f, total, whole), 0, n), expected);
}

TEST_F(WithoutMaster, ASkippedStepChangesNothing) {
  state = {.learning_rate = 0.1f, .finite = 0};
  EXPECT_EQ(codes(step(1.f, 100, {0, 100}), 0, 100), std::vector<uint16_t>(100, bf16(1.f).code));
}

// The moments are those of float32 weights; a weight is one of the two neighbours of what they would be.
TEST_F(WithoutMaster, IsTheUpdateOfFloat32WeightsRounded) {
  state = {.updates = 3, .learning_rate = 0.01f, .grad_factor = 0.5f};
  for (const DType type : {DType::bf16, DType::f16}) {
    const int64_t n = 2003;
    const UpdateRange range{0, n, 1, 0.1f};
    const Tensor narrow = upload(random(n, 2), type), g = upload(random(n, 3)), m0 = upload(random(n, 4));
    Floats widened(static_cast<size_t>(n));
    for (int64_t i = 0; i < n; ++i)
      widened[size_t(i)] = type == DType::bf16 ? float(narrow.data<bf16>()[i]) : float(narrow.data<fp16>()[i]);
    const Tensor wide = upload(widened);
    const auto update = [&](const Tensor& weights) {
      const Tensor m = upload(values(m0)), v = upload(Floats(size_t(n), 0.5f));
      adamw(backend, {&state, weights, {}, g, m, v, &range, 1, 0.9f, 0.95f, 1e-8f});
      return std::pair{values(m), values(v)};
    };
    EXPECT_EQ(update(narrow), update(wide));
    int64_t away = 0;
    for (int64_t i = 0; i < n; ++i) {
      const float x = wide.data<float>()[i];
      const float y = type == DType::bf16 ? float(narrow.data<bf16>()[i]) : float(narrow.data<fp16>()[i]);
      const float nearest = type == DType::bf16 ? float(bf16(x)) : float(fp16(x));
      ASSERT_LE(std::abs(y - x), 2 * roundoff(type) * std::abs(x) + 1e-7) << i;
      away += y != nearest;
    }
    EXPECT_GT(away, n / 6);  // a quarter goes the longer way
    EXPECT_LT(away, n / 3);
  }
}

}  // namespace
}  // namespace mixtape
