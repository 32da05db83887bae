// Adafactor against transformers' traces, and against its formula in float64 on larger tensors.
#include <bit>

#include "tests/ops/optimizer_support.h"

namespace mixtape {
namespace {

class AdafactorTest : public OptimizerFixture {
 protected:
  ~AdafactorTest() override { set_thread_count(2); }
};

struct Settings {
  double lr = 0.01, beta1 = 0, decay_rate = 0.8, eps = 1e-30, clip_threshold = 1, weight_decay = 0, scale = 1;
};

// One tensor, its moments, and one update in float64.
struct AdafactorReference {
  int64_t rows, cols;
  std::vector<double> w, m, row, col;

  AdafactorReference(int64_t r, int64_t c, const float* start)
      : rows(r), cols(c), w(start, start + r * c), m(r * c), row(r), col(c) {}

  void update(const Settings& s, int64_t t, const std::vector<double>& g) {
    const double beta2 = 1 - std::pow(double(t), -s.decay_rate);
    std::vector<double> of_rows(rows), of_cols(cols);
    for (int64_t i = 0; i < rows * cols; ++i) {
      of_rows[i / cols] += (g[i] * g[i] + s.eps) / double(cols);
      of_cols[i % cols] += (g[i] * g[i] + s.eps) / double(rows);
    }
    double mean = 0;
    for (int64_t r = 0; r < rows; ++r) {
      row[r] = beta2 * row[r] + (1 - beta2) * of_rows[r];
      mean += row[r] / double(rows);
    }
    for (int64_t c = 0; c < cols; ++c) col[c] = beta2 * col[c] + (1 - beta2) * of_cols[c];
    std::vector<double> u(g.size());
    double squares = 0;
    for (size_t i = 0; i < u.size(); ++i) {
      u[i] = g[i] / std::sqrt(row[i / cols] / mean) / std::sqrt(col[i % cols]);
      squares += u[i] * u[i];
    }
    const double rate = s.lr * s.scale, rms = std::sqrt(squares / double(u.size()));
    for (size_t i = 0; i < u.size(); ++i) {
      u[i] *= rate / std::max(1.0, rms / s.clip_threshold);
      if (s.beta1 > 0) u[i] = m[i] = s.beta1 * m[i] + (1 - s.beta1) * u[i];
      w[i] = w[i] * (1 - rate * s.weight_decay) - u[i];
    }
  }
};

double root_mean_square(const std::vector<double>& values) {
  double squares = 0;
  for (double x : values) squares += x * x;
  return std::sqrt(squares / double(values.size()));
}

TEST_F(AdafactorTest, FollowsTheGoldenTraces) {
  int cases = 0;
  for (const auto& c : golden_optim("optimizers.json")) {
    const std::string name = c["optimizer"];
    if (!name.starts_with("adafactor_") || name == "adafactor_torch") continue;
    ++cases;
    const auto& s = c["settings"];
    const std::vector<double> initial = flat(c["initial"]);
    const bool matrix = c["initial"][0].is_array();
    const auto n = int64_t(initial.size()), cols = matrix ? int64_t(c["initial"][0].size()) : n;
    const UpdateTensor tensor{.rows = n / cols, .cols = cols, .weight_decay = s["weight_decay"], .row_moments = cols};
    const bool momentum = !s["beta1"].is_null(), scaled = s["scale_parameter"];
    const Tensor w = upload(Floats(initial.begin(), initial.end())), v = upload(Floats(cols + n / cols));
    const Tensor m = upload(Floats(n)), scales = upload({NAN});
    state = {};
    for (size_t step = 0; step < c["gradients"].size(); ++step, ++state.updates) {
      const double t = double(step) + 1;
      state.learning_rate = s["relative_step"] ? float(std::min(1e-2, 1 / std::sqrt(t))) : s["lr"].get<float>();
      if (scaled) parameter_scales(backend, {scales, w, &tensor, 1, s["eps"][1]});
      const auto g = flat(c["gradients"][step]);
      adafactor(backend, {.state = &state,
                          .weights = w,
                          .gradients = upload(Floats(g.begin(), g.end())),
                          .m = momentum ? m : Tensor{},
                          .v = v,
                          .tensors = &tensor,
                          .n_tensors = 1,
                          .beta1 = momentum ? s["beta1"].get<float>() : 0,
                          .decay_rate = -s["decay_rate"].get<float>(),
                          .eps = s["eps"][0],
                          .clip_threshold = s["clip_threshold"],
                          .scales = scaled ? scales : Tensor{}});
      const auto expected = flat(c["parameters_after_step"][step]);
      for (int64_t i = 0; i < n; ++i) EXPECT_NEAR(values(w)[i], expected[i], 1e-6) << name << ", step " << step;
    }
    const auto& final = c["final_state"];
    const auto columns = flat(final[matrix ? "exp_avg_sq_col" : "exp_avg_sq"]);
    for (int64_t i = 0; i < cols; ++i) EXPECT_NEAR(values(v)[i], columns[i], 2e-6 * columns[i]) << name;
    const auto rows = matrix ? flat(final["exp_avg_sq_row"]) : std::vector<double>{};
    for (size_t i = 0; i < rows.size(); ++i) EXPECT_NEAR(values(v)[size_t(cols) + i], rows[i], 2e-6 * rows[i]) << name;
  }
  EXPECT_EQ(cases, 8);
}

// Tall, wide, odd and large tensors, more than one group of them, a vector and a padding; three updates, each from
// what the one before left.
TEST_F(AdafactorTest, FollowsItsFormulaAndKnowsNoThreads) {
  std::vector<UpdateTensor> tensors = {{.rows = 1000, .cols = 67}, {.rows = 3, .cols = 5000},
                                       {.rows = 1, .cols = 77},    {.rows = 600, .cols = 1030},
                                       {.rows = 40, .cols = 1},    {.rows = 129, .cols = 64}};
  int64_t at = 0, moments = 0;
  for (UpdateTensor& t : tensors) {
    t.offset = at, t.column_moments = moments, t.row_moments = moments + t.cols;
    at += (t.count() + 63) / 64 * 64, moments += t.cols + t.rows;
  }
  tensors[1].lr_factor = 0.5f, tensors[0].weight_decay = 0.1f;
  const Floats start = random(at, 20), scales = {0.5f, 1, 2, 0.1f, 1, 3};
  std::vector<AdafactorReference> references;
  for (const UpdateTensor& t : tensors) references.emplace_back(t.rows, t.cols, start.data() + t.offset);
  std::vector<std::vector<std::byte>> first;
  for (int threads : {1, 2, 4}) {
    set_thread_count(threads);
    const Tensor w = upload(start), m = upload(Floats(at)), v = upload(Floats(moments)), scale = upload(scales);
    for (int step = 0; step < 3; ++step) {
      state = {.updates = uint64_t(step), .learning_rate = 0.01f, .grad_factor = 0.25f};
      Floats g = random(at, 30 + uint64_t(step));
      for (int64_t i = 0; i < at; ++i) g[i] *= step == 1 ? 10.f : 1.f;  // the second update is clipped
      for (int64_t i = 0; i < 67; ++i) g[i] = 0;                        // a row that no token looked up
      adafactor(backend, {.state = &state,
                          .weights = w,
                          .gradients = upload(g),
                          .m = m,
                          .v = v,
                          .tensors = tensors.data(),
                          .n_tensors = int64_t(tensors.size()),
                          .beta1 = 0.9f,
                          .scales = scale});
      for (size_t i = 0; threads == 1 && i < tensors.size(); ++i) {
        const UpdateTensor& t = tensors[i];
        std::vector<double> gradient(g.begin() + t.offset, g.begin() + t.offset + t.count());
        for (double& x : gradient) x *= 0.25;
        references[i].update(
            {.lr = 0.01 * t.lr_factor, .beta1 = 0.9, .weight_decay = t.weight_decay, .scale = scales[i]}, step + 1,
            gradient);
        for (int64_t k = 0; k < t.count(); ++k)
          ASSERT_NEAR(w.data<float>()[t.offset + k], references[i].w[k], 3e-6) << "tensor " << i << ", element " << k;
      }
    }
    const std::vector<std::vector<std::byte>> now = {bits(w), bits(m), bits(v)};
    if (first.empty()) first = now;
    EXPECT_EQ(now, first) << threads << " threads";
    for (const UpdateTensor& t : tensors)
      for (int64_t i = t.offset + t.count(); i % 64 != 0; ++i) ASSERT_EQ(w.data<float>()[i], start[i]) << "padding";
  }
}

TEST_F(AdafactorTest, AnUpdateIsAtMostAsLargeAsTheThreshold) {
  const UpdateTensor tensor{.rows = 30, .cols = 40, .row_moments = 40};
  const Floats gradient = random(1200, 40);
  for (const float threshold : {0.1f, 1.f, 100.f}) {
    const Tensor w = upload(Floats(1200)), v = upload(Floats(70));
    state = {.updates = 0, .learning_rate = 1};
    const auto step = [&](float factor) {
      Floats g = gradient;
      for (float& x : g) x *= factor;
      adafactor(backend, {.state = &state,
                          .weights = w,
                          .gradients = upload(g),
                          .v = v,
                          .tensors = &tensor,
                          .n_tensors = 1,
                          .clip_threshold = threshold});
    };
    step(1);
    state.updates = 100;
    const Floats before = values(w);
    step(1000);  // much larger than what the moments know
    std::vector<double> moved;
    for (int i = 0; i < 1200; ++i) moved.push_back(double(values(w)[i]) - before[i]);
    if (threshold <= 1)
      EXPECT_NEAR(root_mean_square(moved), threshold, 1e-4 * threshold);
    else
      EXPECT_GT(root_mean_square(moved), 2);
  }
}

// Whatever is stored as one, tensors do not know of each other.
TEST_F(AdafactorTest, TensorsAreUpdatedAsIfAlone) {
  const Floats start = random(6 * 50, 50), gradient = random(6 * 50, 51);
  state = {.learning_rate = 0.01f};
  const auto update = [&](const Tensor& w, const Tensor& g, const std::vector<UpdateTensor>& tensors) {
    adafactor(backend, {.state = &state,
                        .weights = w,
                        .gradients = g,
                        .v = upload(Floats(2 * 50 + 6)),
                        .tensors = tensors.data(),
                        .n_tensors = int64_t(tensors.size())});
    return values(w);
  };
  const UpdateTensor upper{.rows = 4, .cols = 50, .row_moments = 100};
  const UpdateTensor lower{.offset = 200, .rows = 2, .cols = 50, .column_moments = 50, .row_moments = 104};
  const Floats together = update(upload(start), upload(gradient), {upper, lower});
  UpdateTensor alone = lower;
  alone.offset = 0;
  const Floats half =
      update(upload({start.begin() + 200, start.end()}), upload({gradient.begin() + 200, gradient.end()}), {alone});
  EXPECT_EQ(Floats(together.begin() + 200, together.end()), half);
  EXPECT_NE(update(upload(start), upload(gradient), {{.rows = 6, .cols = 50, .row_moments = 100}}), together);
}

TEST_F(AdafactorTest, NarrowWeightsAreTheRoundedMaster) {
  const UpdateTensor tensor{.rows = 17, .cols = 59, .weight_decay = 0.1f, .row_moments = 59};
  const int64_t n = tensor.count();
  const Floats start = random(n, 60), gradient = random(n, 61);
  const auto update = [&](const Tensor& weights, const Tensor& master) {
    adafactor(backend, {.state = &state,
                        .weights = weights,
                        .master = master,
                        .gradients = upload(gradient),
                        .v = upload(Floats(59 + 17)),
                        .tensors = &tensor,
                        .n_tensors = 1});
  };
  state = {.learning_rate = 0.01f};
  const Tensor plain = upload(start);
  update(plain, {});
  for (const DType type : {DType::bf16, DType::f16}) {
    const Tensor w = upload(start, type), master = upload(start);
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

TEST_F(AdafactorTest, ASkippedStepChangesNothingAndWrongBuffersAreRefused) {
  const UpdateTensor tensor{.rows = 10, .cols = 10, .row_moments = 10};
  const Tensor w = upload(random(100, 70)), m = upload(random(100, 71)), v = upload(Floats(20, 1.f));
  Adafactor a{.state = &state,
              .weights = w,
              .gradients = upload(Floats(100, NAN)),
              .m = m,
              .v = v,
              .tensors = &tensor,
              .n_tensors = 1,
              .beta1 = 0.9f};
  const auto before = std::array{bits(w), bits(m), bits(v)};
  state = {.learning_rate = 0.01f, .finite = 0};
  adafactor(backend, a);
  EXPECT_EQ((std::array{bits(w), bits(m), bits(v)}), before);
  state.finite = 1;
  a.gradients = upload(Floats(100, 1.f));
  adafactor(backend, a);
  EXPECT_NE(bits(w), before[0]);

  a.v = upload(Floats(19));
  EXPECT_THROW(adafactor(backend, a), Error);
  a.v = v, a.m = upload(Floats(99));
  EXPECT_THROW(adafactor(backend, a), Error);
  a.m = m, a.weights = upload(Floats(100), DType::bf16);
  EXPECT_THROW(adafactor(backend, a), Error);
}

}  // namespace
}  // namespace mixtape
