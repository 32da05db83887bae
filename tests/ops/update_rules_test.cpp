// Update rules that treat each element alone, on every device, against traces of PyTorch and their formulas in float64.
#include "tests/ops/optimizer_support.h"
#include "tests/ops/update_bench.h"

namespace mixtape {
namespace {

Floats numbers(const nlohmann::json& j) {
  const std::vector<double> values = flat(j);
  return {values.begin(), values.end()};
}

// Buffers of one parameter, and the call of the rule that a trace names.
struct Rule {
  std::string name;
  nlohmann::json settings;
  Tensor w, master, g;
  Moment m, v;
  std::vector<UpdateRange> ranges;

  void update(Bench& b, const StepState& s) const {
    const double momentum = settings.value("momentum", 0.0);
    const auto n = int64_t(ranges.size());
    const auto beta = [&](int i) { return settings["betas"][i].get<float>(); };
    StepState* const state = b.state(s);
    if (name.starts_with("sgd"))
      sgd(*b, {state, w, master, g, m, ranges.data(), n, float(momentum), settings.value("nesterov", false)});
    else if (name == "lion")
      lion(*b, {state, w, master, g, m, ranges.data(), n, beta(0), beta(1)});
    else
      adamw(*b, {.state = state,
                 .weights = w,
                 .master = master,
                 .gradients = g,
                 .m = m,
                 .v = v,
                 .ranges = ranges.data(),
                 .n_ranges = n,
                 .beta1 = beta(0),
                 .beta2 = beta(1),
                 .eps = settings["eps"],
                 .decoupled_decay = name != "adam_l2"});
  }
};

TEST(UpdateRules, FollowTheGoldenTraces) {
  const auto traces = golden_optim("optimizers.json");
  for (const TestDevice& device : update_devices()) {
    int cases = 0;
    for (const auto& c : traces) {
      const std::string name = c["optimizer"];
      if (name.starts_with("adafactor")) continue;
      ++cases;
      Bench b(device);
      const Floats start = numbers(c["initial"]);
      const auto n = int64_t(start.size());
      Rule rule{name, c["settings"], b.put(start), {}, {}, b.zeros(DType::f32, n), b.zeros(DType::f32, n)};
      rule.ranges = {{.count = n, .weight_decay = c["settings"].value("weight_decay", 0.f)}};
      for (size_t step = 0; step < c["gradients"].size(); ++step) {
        rule.g = b.put(numbers(c["gradients"][step]));
        rule.update(b, {.updates = step, .learning_rate = c["settings"]["lr"]});
        const Floats now = b.get<float>(rule.w), expected = numbers(c["parameters_after_step"][step]);
        for (size_t i = 0; i < now.size(); ++i)
          ASSERT_NEAR(now[i], expected[i], 2e-6 * (1 + std::abs(expected[i])))
              << device.name << " " << name << " " << step;
      }
    }
    EXPECT_EQ(cases, 12) << "AdamW, Adam, SGD and Lion, twice each and more";
  }
}

// A larger buffer with other formats: bf16 weights without a master, bf16 gradients and an int8 moment, by the formulas
// in float64 on what is stored; and nothing where the gradients were not finite.
TEST(UpdateRules, WorkOnNarrowBuffers) {
  constexpr int64_t n = 3000;
  for (const TestDevice& device : update_devices())
    for (const std::string name : {"sgd", "sgd_nesterov", "lion", "adam_l2"}) {
      Bench b(device);
      const nlohmann::json settings = {
          {"betas", {0.9, 0.99}}, {"momentum", 0.9}, {"nesterov", name == "sgd_nesterov"}, {"eps", 1e-8}};
      Rule rule{
          name, settings, b.put_as(normals(n, 1), DType::bf16), {}, {}, b.zeros(DType::i8, n), b.zeros(DType::u8, n)};
      rule.ranges = {{.count = 1000, .lr_factor = 0.5f, .weight_decay = 0.1f}, {.offset = 1024, .count = 1976}};
      rule.g = b.put_as(normals(n, 2), DType::bf16);
      const auto widened = [&](const Tensor& t) {
        std::vector<bf16> narrow(n);
        (*b).copy_to_host(narrow.data(), t);
        Floats values;
        for (const bf16 x : narrow) values.push_back(float(x));
        return values;
      };
      const Floats before = widened(rule.w), g = widened(rule.g);
      StepState s{.learning_rate = 0.1f, .grad_factor = 2, .finite = 0};
      rule.update(b, s);
      EXPECT_EQ(widened(rule.w), before) << "a step that is skipped";
      s.finite = 1;
      rule.update(b, s);
      const Floats after = widened(rule.w);
      for (const UpdateRange& r : rule.ranges)
        for (int64_t i = r.offset; i < r.offset + r.count; ++i) {
          const double lr = 0.1 * r.lr_factor, penalty = name == "lion" ? 0 : r.weight_decay * before[i];
          const double gradient = 2.0 * g[i] + penalty;
          double expected = 0;
          if (name == "sgd") expected = before[i] - lr * gradient;
          if (name == "sgd_nesterov") expected = before[i] - lr * 1.9 * gradient;
          if (name == "lion")
            expected = before[i] * (1 - lr * r.weight_decay) - lr * (gradient > 0 ? 1 : gradient < 0 ? -1 : 0);
          if (name == "adam_l2") expected = before[i] - lr * gradient / (std::abs(gradient) + 1e-8);
          ASSERT_NEAR(after[i], expected, std::abs(expected) / 127 + 1e-5) << device.name << " " << name << " " << i;
        }
      EXPECT_EQ(after[1010], before[1010]) << "between the ranges";
      EXPECT_NE(b.bits(rule.m.values), std::vector<std::byte>(n));
    }
}

// What Muon does beside its matrix products, by the formulas in float64.
TEST(UpdateRules, ThePassesOfMuon) {
  constexpr int64_t n = 70000;
  const std::vector<UpdateRange> ranges = {{.count = 65536, .lr_factor = 0.5f, .weight_decay = 0.1f},
                                           {.offset = 65536, .count = n - 65536, .first = 65536}};
  for (const TestDevice& device : update_devices())
    for (const bool nesterov : {false, true}) {
      Bench b(device);
      const Floats g = normals(n, 1), m0 = normals(n, 2), w0 = normals(n, 3);
      const Tensor direction = b.put(Floats(n, NAN)), m = b.put(m0), w = b.put(w0);
      StepState* const state = b.state({.learning_rate = 0.1f, .grad_factor = 2});
      muon_direction(*b, {state, direction, b.put(g), m, ranges.data(), 2, 0.9f, nesterov});
      const Floats u = b.get<float>(direction), m1 = b.get<float>(m);
      for (size_t i = 0; i < n; ++i) {
        const double next = 0.9 * m0[i] + 2.0 * g[i];
        ASSERT_NEAR(m1[i], next, 2e-6 * (1 + std::abs(next))) << device.name << " " << i;
        ASSERT_NEAR(u[i], nesterov ? 2.0 * g[i] + 0.9 * next : next, 4e-6 * (1 + std::abs(next))) << i;
      }
      divide_by_norm(*b, {direction, b.put(Floats{3})});
      const Floats normal = b.get<float>(direction);
      for (size_t i = 0; i < n; i += 7) ASSERT_NEAR(normal[i], u[i] / (3 * std::sqrt(double(n))), 1e-6) << i;
      follow(*b, {state, w, {}, direction, ranges.data(), 2, 4});
      const Floats after = b.get<float>(w);
      for (size_t i = 0; i < n; ++i) {
        const double rate = 0.1 * (i < 65536 ? 0.5 : 1), decay = i < 65536 ? 0.1 : 0;
        const double expected = w0[i] * (1 - rate * decay) - 4 * rate * normal[i];
        ASSERT_NEAR(after[i], expected, 2e-6 * (1 + std::abs(expected))) << i;
      }
      StepState* const skipped = b.state({.learning_rate = 0.1f, .finite = 0});
      follow(*b, {skipped, w, {}, direction, ranges.data(), 2, 4});
      EXPECT_EQ(b.get<float>(w), after);
    }
}

TEST(UpdateRules, WhatCannotBeIsRefused) {
  Bench b(update_devices().front());
  const Tensor w = b.put(Floats(10)), g = b.put(Floats(10)), short_buffer = b.put(Floats(9));
  const UpdateRange range{.count = 10};
  StepState* const state = b.state({});
  EXPECT_NO_THROW(sgd(*b, {state, w, {}, g, {}, &range, 1, 0}));
  EXPECT_THROW(sgd(*b, {state, w, {}, g, {}, &range, 1, 0.9f}), Error) << "momentum needs a buffer";
  EXPECT_THROW(sgd(*b, {state, w, {}, short_buffer, {}, &range, 1, 0}), Error);
  EXPECT_THROW(lion(*b, {state, w, {}, g, short_buffer, &range, 1, 0.9f, 0.99f}), Error);
  EXPECT_THROW(lion(*b, {state, b.put_as(Floats(10), DType::f16), b.put(std::vector<uint16_t>(10)), g, w, &range, 1,
                         0.9f, 0.99f}),
               Error);
}

}  // namespace
}  // namespace mixtape
