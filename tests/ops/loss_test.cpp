#include "core/ops/loss.h"

#include <limits>

#include "tests/support/op_test.h"

namespace mixtape {
namespace {

// Three outputs: this micro-batch's share of the mean, each row's loss, and the mean without label smoothing.
Arrays reference(const Arrays& in, const LossSpec& spec) {
  const Array &hidden = in[0], &weight = in[1], &bias = in[2], &targets = in[3];
  const int64_t vocabulary = weight.rows();
  Array mean({1}), losses({hidden.rows()}), nll({1});
  for (int64_t r = 0; r < hidden.rows(); ++r) {
    if (targets[r] < 0) continue;
    std::vector<double> z(vocabulary);
    double max = -std::numeric_limits<double>::infinity(), sum = 0, sum_z = 0;
    for (int64_t v = 0; v < vocabulary; ++v) {
      z[v] = bias.count() ? bias[v] : 0;
      for (int64_t i = 0; i < hidden.cols(); ++i) z[v] += hidden(r, i) * weight(v, i);
      z[v] *= double(spec.logit_scale);
      max = std::max(max, z[v]);
      sum_z += z[v];
    }
    for (double value : z) sum += std::exp(value - max);
    const double smoothing = double(spec.label_smoothing);
    losses[r] = max + std::log(sum) - (1 - smoothing) * z[int64_t(targets[r])] - smoothing * sum_z / vocabulary;
    mean[0] += losses[r] * test_state().inverse_targets;
    nll[0] += (max + std::log(sum) - z[int64_t(targets[r])]) * test_state().inverse_targets;
  }
  return {mean, losses, nll};
}

// Sizes: rows, d, vocabulary.
OpTest loss_test(std::string name, std::vector<Sizes> sizes, LossSpec spec, bool bias, int64_t least_target) {
  return {.name = std::move(name),
          .sizes = std::move(sizes),
          .inputs =
              [=](Sizes s) {
                return Inputs{normal({s[0], s[1]}), normal_parameter({s[2], s[1]}, 2 / std::sqrt(double(s[1]))),
                              bias ? normal_parameter({s[2]}) : absent(), random_integers({s[0]}, least_target, s[2])};
              },
          .op =
              [=](Tape& tape, const Tensors& in, Sizes) {
                const Loss loss = cross_entropy(tape, in[0], in[1], in[2], in[3], spec);
                return Tensors{loss.mean, loss.row_loss, loss.nll};
              },
          .reference = [=](const Arrays& in, Sizes) { return reference(in, spec); },
          .reduction =
              [](Sizes s) {
                return std::max({s[0], s[1], s[2]});
              },
          .is_loss = true};
}

TEST(OpHarness, cross_entropy) {
  check_op(loss_test("cross_entropy", {{1, 1, 2}, {3, 5, 17}, {9, 16, 65}, {300, 8, 70}, {4, 6, 1100}}, {}, false, 0));
}
TEST(OpHarness, cross_entropy_of_some_rows) {
  check_op(loss_test("cross_entropy of some rows", {{5, 5, 3}, {40, 7, 130}}, {.chunk_rows = 7}, false, -40));
}
TEST(OpHarness, cross_entropy_with_bias_and_smoothing) {
  check_op(loss_test("cross_entropy with bias, scale and smoothing", {{3, 5, 17}, {20, 9, 650}},
                     {.logit_scale = 0.5f, .label_smoothing = 0.1f, .chunk_rows = 8}, true, -1));
}

TEST(OpHarness, cross_entropy_with_strong_smoothing) {
  check_op(loss_test("cross_entropy with strong smoothing", {{1, 3, 2}, {7, 4, 30}, {11, 5, 1030}},
                     {.label_smoothing = 0.9f}, false, -3));
}

class LossTest : public testing::Test {
 protected:
  LossTest() { backend.bind(arena); }

  struct Results {
    Tensor mean, losses, dhidden, dweight, dbias;
  };
  Results run(std::initializer_list<int32_t> targets, Write write, float hidden_value = 1, LossSpec spec = {}) {
    const int64_t rows = int64_t(targets.size());
    const Tensor hidden = backend.make({rows, 4}, DType::f32), weight = backend.make({10, 4}, DType::f32);
    const Tensor bias = backend.make({10}, DType::f32), ids = backend.make({rows}, DType::i32);
    const Results r{backend.make({1}, DType::f32), backend.make({rows}, DType::f32),
                    backend.make({rows, 4}, DType::f32), backend.make({10, 4}, DType::f32),
                    backend.make({10}, DType::f32)};
    std::fill_n(hidden.data<float>(), hidden.count(), hidden_value);
    for (int64_t i = 0; i < 40; ++i) weight.data<float>()[i] = 0.01f * float(i % 7);
    std::fill_n(bias.data<float>(), 10, 0.f);
    for (const Tensor& t : {r.dhidden, r.dweight, r.dbias}) std::fill_n(t.data<float>(), t.count(), 3.f);
    std::copy(targets.begin(), targets.end(), ids.data<int32_t>());
    backend.loss().cross_entropy({.mean = r.mean,
                                  .row_loss = r.losses,
                                  .dhidden = {r.dhidden, write},
                                  .dweight = {r.dweight, write},
                                  .dbias = {r.dbias, write},
                                  .hidden = hidden,
                                  .weight = weight,
                                  .bias = bias,
                                  .targets = ids,
                                  .spec = spec,
                                  .state = &test_state()});
    return r;
  }
  static std::vector<float> values(const Tensor& t) { return {t.data<float>(), t.data<float>() + t.count()}; }

  HostMemory memory{int64_t(64) << 20};
  Arena arena{memory.data(), memory.bytes()};
  CpuBackend backend{CpuOptions{.threads = 2}};
};

TEST_F(LossTest, NoRowHasATarget) {
  const Results zero = run({-1, -1, -1}, Write::overwrite), kept = run({-1, -1, -1}, Write::accumulate);
  EXPECT_EQ(values(zero.mean), std::vector<float>(1, 0.f));
  EXPECT_EQ(values(zero.losses), std::vector<float>(3, 0.f));
  EXPECT_EQ(values(zero.dhidden), std::vector<float>(12, 0.f));
  EXPECT_EQ(values(zero.dweight), std::vector<float>(40, 0.f));
  EXPECT_EQ(values(zero.dbias), std::vector<float>(10, 0.f));
  EXPECT_EQ(values(kept.dhidden), std::vector<float>(12, 3.f));
  EXPECT_EQ(values(kept.dweight), std::vector<float>(40, 3.f));
  EXPECT_EQ(values(kept.dbias), std::vector<float>(10, 3.f));
}

TEST_F(LossTest, RowsWithoutATargetAreLeftAlone) {
  const Results zero = run({4, -1, 9}, Write::overwrite), kept = run({4, -1, 9}, Write::accumulate);
  EXPECT_EQ(values(zero.losses)[1], 0);
  EXPECT_GT(values(zero.losses)[2], 0);
  for (int64_t i = 0; i < 4; ++i) {
    EXPECT_EQ(values(zero.dhidden)[4 + i], 0);
    EXPECT_EQ(values(kept.dhidden)[4 + i], 3);
    EXPECT_NE(values(kept.dhidden)[8 + i], 3);
  }
}

TEST_F(LossTest, ChunksChangeNoRow) {
  const Results whole = run({4, 1, 9, 0, 7}, Write::overwrite);
  const Results chunks = run({4, 1, 9, 0, 7}, Write::overwrite, 1, {.chunk_rows = 2});
  for (int64_t r = 0; r < 5; ++r) EXPECT_NEAR(values(whole.losses)[r], values(chunks.losses)[r], 1e-6);
  for (int64_t i = 0; i < 40; ++i) EXPECT_NEAR(values(whole.dweight)[i], values(chunks.dweight)[i], 1e-5);
  for (int64_t i = 0; i < 10; ++i) EXPECT_NEAR(values(whole.dbias)[i], values(chunks.dbias)[i], 1e-5);
}

TEST_F(LossTest, NonFiniteLogitsGiveANonFiniteLoss) {
  for (float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(), 3e38f}) {
    const Results r = run({4, 2}, Write::overwrite, bad, {.logit_scale = 1e3f});
    EXPECT_FALSE(std::isfinite(values(r.mean)[0])) << bad;
    EXPECT_FALSE(std::isfinite(values(r.losses)[1])) << bad;
  }
}

TEST_F(LossTest, LargeLogitsDoNotOverflow) {
  const Results r = run({1, 2}, Write::overwrite, 1e5f);  // logits of 1e3 to 1e4
  EXPECT_TRUE(std::isfinite(values(r.mean)[0]));
  for (float g : values(r.dweight)) EXPECT_TRUE(std::isfinite(g));
}

// 0.9 of the target's negative log-likelihood and 0.1 of the mean over the whole vocabulary, the target included; with
// the target left out, as in the original Transformer's code, it would be 0.6785.
TEST_F(LossTest, SmoothingIsUniformOverTheWholeVocabulary) {
  const Tensor hidden = backend.make({1, 1}, DType::f32), weight = backend.make({4, 1}, DType::f32);
  const Tensor target = backend.make({1}, DType::i32), mean = backend.make({1}, DType::f32);
  const Tensor row = backend.make({1}, DType::f32), nll = backend.make({1}, DType::f32);
  *hidden.data<float>() = 1, *target.data<int32_t>() = 1;
  const float logits[] = {1, 2, 0.5f, -1};
  std::copy_n(logits, 4, weight.data<float>());
  backend.loss().cross_entropy({.mean = mean,
                                .row_loss = row,
                                .nll = nll,
                                .hidden = hidden,
                                .weight = weight,
                                .targets = target,
                                .spec = {.label_smoothing = 0.1f}});
  EXPECT_NEAR(*row.data<float>(), 0.632682, 1e-5);
  EXPECT_NEAR(*nll.data<float>(), 0.495182, 1e-5);
}

// Of rows with a target, in each chunk, in any panel, and the first of equals.
TEST_F(LossTest, PredictionsAreTheLargestLogits) {
  constexpr int64_t rows = 7, d = 3, vocabulary = 1300;
  const Tensor hidden = backend.make({rows, d}, DType::f32), weight = backend.make({vocabulary, d}, DType::f32);
  const Tensor bias = backend.make({vocabulary}, DType::f32), targets = backend.make({rows}, DType::i32);
  uint32_t bits = 1;
  const auto random = [&] { return float((bits = bits * 1664525 + 1013904223) >> 8) * 0x1p-23f - 1; };
  for (const Tensor& t : {hidden, weight, bias})
    for (int64_t i = 0; i < t.count(); ++i) t.data<float>()[i] = random();
  // The best of row 5 twice, in two panels.
  for (int64_t i = 0; i < d; ++i)
    hidden.data<float>()[5 * d + i] = weight.data<float>()[600 * d + i] = weight.data<float>()[1200 * d + i] = 9;
  bias.data<float>()[600] = bias.data<float>()[1200] = 1;
  for (int64_t r = 0; r < rows; ++r) targets.data<int32_t>()[r] = r == 2 ? -1 : int32_t(r);
  for (const bool predict : {true, false}) {
    Tape tape(backend, nullptr, &test_state());
    const Loss loss = cross_entropy(tape, hidden, weight, bias, targets, {.chunk_rows = 4, .predict = predict});
    ASSERT_EQ(bool(loss.predictions), predict);
    if (!predict) continue;
    for (int64_t r = 0; r < rows; ++r) {
      int32_t best = 0;
      std::vector<double> z(vocabulary);
      for (int32_t v = 0; v < vocabulary; ++v) {
        z[size_t(v)] = double(bias.data<float>()[v]);
        for (int64_t i = 0; i < d; ++i)
          z[size_t(v)] += double(hidden.data<float>()[r * d + i]) * double(weight.data<float>()[v * d + i]);
        if (z[size_t(v)] > z[size_t(best)]) best = v;
      }
      EXPECT_EQ(loss.predictions.data<int32_t>()[r], r == 2 ? -1 : best) << r;
    }
    EXPECT_EQ(loss.predictions.data<int32_t>()[5], 600);
  }
}

TEST_F(LossTest, RefusesSmoothingOutsideItsRange) {
  Tape tape(backend, nullptr, &test_state());
  const Tensor x = backend.make({2, 4}, DType::f32), ids = backend.make({2}, DType::i32);
  for (float smoothing : {-0.1f, 1.f, NAN})
    EXPECT_THROW(cross_entropy(tape, x, x, {}, ids, {.label_smoothing = smoothing}), Error);
}

TEST_F(LossTest, RefusesATargetOutsideTheVocabulary) { EXPECT_THROW(run({10}, Write::overwrite), DataError); }

}  // namespace
}  // namespace mixtape
