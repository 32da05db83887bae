#include "tests/ops/optimizer_support.h"

#include <bit>

namespace mixtape {
namespace {

class Optimizer : public OptimizerFixture {
 protected:
  // 3 chunks and a bit, with padding between ranges that must neither count nor change.
  const std::vector<UpdateRange> ranges = {{0, 1000, 1, 0.1f},
                                           {1024, 64512, 1, 0.f},
                                           {65536, 65536, 0.5f, 0.1f},
                                           {131072, 65529, 1, 0.1f},
                                           {196608, 13, 1, 0.1f}};
  static constexpr int64_t total = 196640;
};

TEST_F(Optimizer, AdamWFollowsTheGoldenTraces) {
  int cases = 0;
  for (const auto& c : golden_optim("optimizers.json")) {
    if (c["optimizer"] != "adamw") continue;
    ++cases;
    const auto& settings = c["settings"];
    const std::vector<double> initial = flat(c["initial"]);
    const int64_t n = int64_t(initial.size());
    const Floats start(initial.begin(), initial.end());
    const Tensor w = upload(start), m = upload(Floats(n)), v = upload(Floats(n));
    const UpdateRange range{0, n, 1, settings["weight_decay"].get<float>()};
    state = {};
    state.learning_rate = settings["lr"];
    for (size_t step = 0; step < c["gradients"].size(); ++step, ++state.updates) {
      const auto g = flat(c["gradients"][step]);
      adamw(backend, {.state = &state,
                      .weights = w,
                      .gradients = upload(Floats(g.begin(), g.end())),
                      .m = m,
                      .v = v,
                      .ranges = &range,
                      .n_ranges = 1,
                      .beta1 = settings["betas"][0],
                      .beta2 = settings["betas"][1],
                      .eps = settings["eps"]});
      const auto expected = flat(c["parameters_after_step"][step]);
      for (int64_t i = 0; i < n; ++i) EXPECT_NEAR(values(w)[i], expected[i], 1e-6) << "step " << step;
    }
    const auto expected_m = flat(c["final_state"]["exp_avg"]), expected_v = flat(c["final_state"]["exp_avg_sq"]);
    for (int64_t i = 0; i < n; ++i) {
      EXPECT_NEAR(values(m)[i], expected_m[i], 1e-6);
      EXPECT_NEAR(values(v)[i], expected_v[i], 1e-6 * expected_v[i] + 1e-7);
    }
  }
  EXPECT_GE(cases, 2);
}

TEST_F(Optimizer, ClipsLikeTheGoldenCases) {
  for (const auto& c : golden_optim("clip.json")) {
    Floats gradients;
    for (const auto& g : c["gradients"])
      for (double x : flat(g)) gradients.push_back(float(x));
    state = {.loss_scale = 16};
    for (float& x : gradients) x *= 16;
    const UpdateRange range{0, int64_t(gradients.size())};
    gradient_norm(backend, {.state = &state,
                            .gradients = upload(gradients),
                            .ranges = &range,
                            .n_ranges = 1,
                            .clip = c["max_norm"].get<float>()});
    EXPECT_NEAR(state.grad_norm, c["norm"].get<double>(), 1e-6 * c["norm"].get<double>());
    EXPECT_NEAR(state.grad_factor * 16, c["coefficient"].get<double>(), 1e-6);
    EXPECT_EQ(state.finite, 1);
  }
}

TEST_F(Optimizer, TheNormIsThatOfTheRangesAndKnowsNoThreads) {
  Floats gradients = random(total, 1);
  std::vector<bool> counts(total);
  for (const UpdateRange& r : ranges) std::fill_n(counts.begin() + r.offset, r.count, true);
  double squares = 0;
  for (int64_t i = 0; i < total; ++i) {
    if (counts[i])
      squares += double(gradients[i]) * gradients[i];
    else
      gradients[i] = NAN;
  }
  const Tensor g = upload(gradients);
  std::vector<StepState> results;
  for (int threads : {1, 2, 4}) {
    set_thread_count(threads);
    StepState s{.loss_scale = 4};
    gradient_norm(
        backend, {.state = &s, .gradients = g, .ranges = ranges.data(), .n_ranges = int64_t(ranges.size()), .clip = 0});
    results.push_back(s);
    EXPECT_NEAR(s.grad_norm, std::sqrt(squares) / 4, 1e-6 * std::sqrt(squares));
    EXPECT_EQ(s.grad_factor, 0.25f);
    EXPECT_EQ(std::bit_cast<uint32_t>(s.grad_norm), std::bit_cast<uint32_t>(results[0].grad_norm));
  }
}

// As two ranks do it: each squares its own ranges, and all make the norm of all of them.
TEST_F(Optimizer, TheNormOfPartsIsTheSame) {
  const Tensor g = upload(random(total, 1));
  const auto n = int64_t(ranges.size()), half = n / 2;
  StepState whole{.loss_scale = 4}, parts = whole;
  gradient_norm(backend, {.state = &whole, .gradients = g, .ranges = ranges.data(), .n_ranges = n, .clip = 1});
  const Tensor squares = backend.make({n}, DType::i64);
  for (const auto& [first, count] : {std::pair{int64_t(0), half}, {half, n - half}})
    range_squares(
        backend,
        {.squares = squares.columns(first, count), .gradients = g, .ranges = ranges.data() + first, .n_ranges = count});
  gradient_norm(backend, {.state = &parts, .ranges = ranges.data(), .n_ranges = n, .clip = 1, .squares = squares});
  EXPECT_EQ(std::bit_cast<uint32_t>(parts.grad_norm), std::bit_cast<uint32_t>(whole.grad_norm));
  EXPECT_EQ(parts.grad_factor, whole.grad_factor);
  EXPECT_THROW(range_squares(backend, {.squares = squares, .gradients = g, .ranges = ranges.data(), .n_ranges = half}),
               Error);
}

TEST_F(Optimizer, MeasuresGradientsOf16Bits) {
  const Floats g = random(total, 1);
  const Tensor narrow = backend.make({total}, DType::bf16), wide = backend.make({total}, DType::f32);
  for (int64_t i = 0; i < total; ++i) wide.data<float>()[i] = float(narrow.data<bf16>()[i] = bf16(g[i]));
  const auto norm = [&](const Tensor& t) {
    gradient_norm(backend,
                  {.state = &state, .gradients = t, .ranges = ranges.data(), .n_ranges = int64_t(ranges.size())});
    return double(state.grad_norm);
  };
  EXPECT_NEAR(norm(narrow), norm(wide), 1e-6 * norm(wide));
  narrow.data<bf16>()[total - 30] = bf16(INFINITY);
  norm(narrow);
  EXPECT_EQ(state.finite, 0);
}

// The norm grows with the parts, and what is clipped by is never less than the norm of the step before.
TEST_F(Optimizer, MeasuresAndClipsInParts) {
  const std::vector<UpdateRange> three = {{0, 1}, {0, 2}, {0, 1}};
  const std::vector<Floats> parts = {{3}, {4, 12}, {84}};  // norms of 3, 13 and 85
  const auto measure = [&](size_t i, float clip) {
    gradient_norm(backend, {.state = &state,
                            .gradients = upload(parts[i]),
                            .ranges = &three[i],
                            .n_ranges = 1,
                            .clip = clip,
                            .adds = true});
  };
  for (const float before : {0.f, 20.f}) {
    state = {.last_norm = before};
    for (size_t i = 0; i < 3; ++i) {
      measure(i, 2);
      const float norm = std::vector{3.f, 13.f, 85.f}[i];
      EXPECT_FLOAT_EQ(state.grad_norm, norm);
      EXPECT_NEAR(state.grad_factor, 2 / std::max(norm, before), 1e-6);
    }
    measure(0, 0);
    EXPECT_EQ(state.grad_factor, 1);
  }
  state = {.grad_squares = INFINITY};  // of an earlier part
  measure(0, 2);
  EXPECT_EQ(state.finite, 0);
}

TEST_F(Optimizer, SeesEveryValueThatIsNotFinite) {
  const int64_t n = 65536 + 77;
  const std::vector<UpdateRange> two = {{0, 65536}, {65536, 77}};
  const Tensor g = upload(Floats(n, 1e30f));  // squares that float32 could not hold
  const auto norm = [&] {
    gradient_norm(backend, {.state = &state, .gradients = g, .ranges = two.data(), .n_ranges = 2, .clip = 1});
  };
  norm();
  EXPECT_EQ(state.finite, 1);
  EXPECT_NEAR(state.grad_norm / (1e30 * std::sqrt(double(n))), 1, 1e-6);
  for (const int64_t at : {int64_t(0), int64_t(12345), int64_t(65535), n - 1})
    for (const float bad : {INFINITY, -INFINITY, NAN}) {
      g.data<float>()[at] = bad;
      norm();
      EXPECT_EQ(state.finite, 0) << at;
      EXPECT_EQ(std::isnan(state.grad_norm), std::isnan(bad));
      EXPECT_EQ(state.grad_factor, 0);
      g.data<float>()[at] = 1e30f;
    }
}

TEST_F(Optimizer, UpdatesItsRangesOnlyAndKnowsNoThreads) {
  state = {.updates = 3, .learning_rate = 0.01f, .grad_factor = 0.5f};
  const Floats w0 = random(total, 2), g0 = random(total, 3), m0 = random(total, 4);
  Floats v0 = random(total, 5);
  for (float& x : v0) x *= x;
  std::vector<std::byte> first;
  for (int threads : {1, 2, 4}) {
    set_thread_count(threads);
    const Tensor w = upload(w0), g = upload(g0), m = upload(m0), v = upload(v0);
    adamw(backend, {&state, w, {}, g, m, v, ranges.data(), int64_t(ranges.size()), 0.9f, 0.95f, 1e-8f});
    std::vector<bool> in_range(total);
    for (const UpdateRange& r : ranges)
      for (int64_t i = r.offset; i < r.offset + r.count; ++i) {
        in_range[i] = true;
        const double gradient = 0.5 * g0[i], lr = 0.01 * r.lr_factor;
        const double m1 = 0.9 * m0[i] + 0.1 * gradient, v1 = 0.95 * v0[i] + 0.05 * gradient * gradient;
        const double expected = w0[i] * (1 - lr * r.weight_decay) -
                                lr * (m1 / (1 - std::pow(0.9, 4))) / (std::sqrt(v1 / (1 - std::pow(0.95, 4))) + 1e-8);
        ASSERT_NEAR(w.data<float>()[i], expected, 2e-6 * (1 + std::abs(expected))) << i;
      }
    for (int64_t i = 0; i < total; ++i)
      if (!in_range[i]) {
        ASSERT_EQ(w.data<float>()[i], w0[i]) << i;
      }
    if (first.empty()) first = bits(w);
    EXPECT_EQ(bits(w), first) << threads << " threads";
  }
}

// BERT's optimizer.
TEST_F(Optimizer, WithoutBiasCorrectionMomentsAreTakenAsTheyAre) {
  state = {.updates = 2, .learning_rate = 0.01f};
  const int64_t n = 77;
  const UpdateRange range{0, n, 1, 0.1f};
  const Floats w0 = random(n, 10), g = random(n, 11), m0 = random(n, 12), v0(n, 0.25f);
  const Tensor w = upload(w0);
  adamw(backend, {.state = &state,
                  .weights = w,
                  .gradients = upload(g),
                  .m = upload(m0),
                  .v = upload(v0),
                  .ranges = &range,
                  .n_ranges = 1,
                  .beta1 = 0.9f,
                  .beta2 = 0.999f,
                  .eps = 1e-6f,
                  .bias_correction = false});
  for (int64_t i = 0; i < n; ++i) {
    const double m = 0.9 * m0[i] + 0.1 * g[i], v = 0.999 * 0.25 + 0.001 * double(g[i]) * g[i];
    const double expected = w0[i] * (1 - 0.01 * 0.1) - 0.01 * m / (std::sqrt(v) + 1e-6);
    ASSERT_NEAR(w.data<float>()[i], expected, 2e-6 * (1 + std::abs(expected))) << i;
  }
}

// Of tensors across chunks, of one that is all but 0, and of none that stands between them.
TEST_F(Optimizer, ScalesAreTheRootMeanSquaresOfTensors) {
  const std::vector<UpdateTensor> tensors = {{.offset = 3, .rows = 700, .cols = 101},
                                             {.offset = 80000, .cols = 5},
                                             {.offset = 90000, .rows = 2, .cols = 50000}};
  Floats w = random(total, 13);
  for (int64_t i = 80000; i < 80005; ++i) w[i] = 1e-7f;
  std::vector<bool> counts(total);
  for (const UpdateTensor& t : tensors) std::fill_n(counts.begin() + t.offset, t.count(), true);
  for (int64_t i = 0; i < total; ++i)
    if (!counts[i]) w[i] = NAN;
  const Tensor weights = upload(w);
  Floats first;
  for (int threads : {1, 2, 4}) {
    set_thread_count(threads);
    const Tensor scales = upload(Floats(3, NAN));
    parameter_scales(backend, {scales, weights, tensors.data(), 3, 1e-3f});
    for (int t = 0; t < 3; ++t) {
      double squares = 0;
      for (int64_t i = 0; i < tensors[t].count(); ++i) squares += std::pow(double(w[tensors[t].offset + i]), 2);
      const double expected = std::max(1e-3, std::sqrt(squares / double(tensors[t].count())));
      EXPECT_NEAR(values(scales)[t], expected, 1e-6 * expected) << t;
    }
    if (first.empty()) first = values(scales);
    EXPECT_EQ(values(scales), first) << threads << " threads";
  }
}

// A scale is a factor of the step, not of the decay, and each range has its tensor's.
TEST_F(Optimizer, AdamWStepsByTheScaleOfEachTensor) {
  state = {.learning_rate = 0.01f};
  const int64_t n = 150;
  const std::vector<UpdateRange> two = {{0, 100, 1, 0.1f, 1}, {100, 50, 1, 0.1f, 0}};
  const Floats scales = {0.25f, 3};
  const Floats start = random(n, 14), gradients = random(n, 15);
  const auto after = [&](bool scaled, float decay) {
    std::vector<UpdateRange> ranges = two;
    for (UpdateRange& r : ranges) r.weight_decay = decay;
    const Tensor w = upload(start), m = upload(Floats(n)), v = upload(Floats(n));
    AdamW a{&state, w, {}, upload(gradients), m, v, ranges.data(), 2, 0.9f, 0.95f, 1e-8f};
    if (scaled) a.scales = upload(scales);
    adamw(backend, a);
    return values(w);
  };
  const Floats plain = after(false, 0), scaled = after(true, 0), decayed = after(true, 0.1f);
  for (int64_t i = 0; i < n; ++i) {
    const float step = (i < 100 ? 3 : 0.25f) * (plain[i] - start[i]);
    ASSERT_NEAR(scaled[i] - start[i], step, 1e-6) << i;
    ASSERT_NEAR(decayed[i], scaled[i] - 0.001 * start[i], 1e-6) << i;
  }
  EXPECT_THROW(adamw(backend, {&state,
                               upload(start),
                               {},
                               upload(start),
                               upload(start),
                               upload(start),
                               two.data(),
                               2,
                               0.9f,
                               0.95f,
                               1e-8f,
                               true,
                               upload({1})}),
               Error);
}

TEST_F(Optimizer, NarrowWeightsAreTheRoundedMaster) {
  for (const DType type : {DType::bf16, DType::f16}) {
    state = {.learning_rate = 0.01f};
    const int64_t n = 1003;
    const UpdateRange range{0, n, 1, 0.1f};
    const Floats start = random(n, 6);
    const Tensor w = upload(start, type), master = upload(start), plain = upload(start), g = upload(random(n, 7));
    const auto update = [&](const Tensor& weights, const Tensor& main) {
      const Tensor m = upload(Floats(n)), v = upload(Floats(n));
      adamw(backend, {&state, weights, main, g, m, v, &range, 1, 0.9f, 0.95f, 1e-8f});
    };
    update(plain, {});
    update(w, master);
    EXPECT_EQ(values(master), values(plain));
    for (int64_t i = 0; i < n; ++i) {
      const float x = master.data<float>()[i];
      if (type == DType::bf16)
        ASSERT_EQ(w.data<bf16>()[i].code, bf16(x).code);
      else
        ASSERT_EQ(w.data<fp16>()[i].code, fp16(x).code);
    }
  }
}

TEST_F(Optimizer, ASkippedStepChangesNothing) {
  state = {.learning_rate = 0.01f, .finite = 0};
  const int64_t n = 100;
  const UpdateRange range{0, n, 1, 0.1f};
  const Tensor w = upload(random(n, 8), DType::bf16), master = upload(random(n, 8)), g = upload(Floats(n, NAN));
  const Tensor m = upload(random(n, 9)), v = upload(Floats(n, 1.f));
  const auto before = std::array{bits(w), bits(master), bits(m), bits(v)};
  adamw(backend, {&state, w, master, g, m, v, &range, 1, 0.9f, 0.95f, 1e-8f});
  EXPECT_EQ((std::array{bits(w), bits(master), bits(m), bits(v)}), before);
  state.finite = 1;
  adamw(backend, {&state, w, master, upload(Floats(n, 1.f)), m, v, &range, 1, 0.9f, 0.95f, 1e-8f});
  EXPECT_NE(bits(w), before[0]);
}

}  // namespace
}  // namespace mixtape
