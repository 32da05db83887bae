#include "core/ops/norm.h"

#include "tests/support/op_test.h"

namespace mixtape {
namespace {

constexpr double eps = 1e-5;

// x: [rows, cols]; bias may be empty; center says layer norm.
Array norm_reference(const Array& x, const Array& weight, const Array& bias, bool center) {
  const int64_t n = x.cols();
  Array y(x.shape());
  for (int64_t r = 0; r < x.rows(); ++r) {
    double mean = 0, variance = 0;
    for (int64_t c = 0; c < n && center; ++c) mean += x(r, c) / n;
    for (int64_t c = 0; c < n; ++c) variance += (x(r, c) - mean) * (x(r, c) - mean) / n;
    for (int64_t c = 0; c < n; ++c)
      y(r, c) = (x(r, c) - mean) / std::sqrt(variance + eps) * weight[c] + (bias.count() ? bias[c] : 0);
  }
  return y;
}

Array sum(const Array& a, const Array& b) {
  Array y(a.shape());
  for (int64_t i = 0; i < a.count(); ++i) y[i] = a[i] + b[i];
  return y;
}

// Least, odd, a multiple of every vector, wide; and rows enough for several blocks of the weights' gradient.
const std::vector<Sizes> norm_sizes = {{2, 3}, {3, 37}, {5, 128}, {2, 1031}, {70, 24}};
int64_t longest_sum(Sizes s) { return std::max(s[0], s[1]); }

const OpTest layer_norm_test{
    .name = "layer_norm",
    .sizes = norm_sizes,
    .inputs =
        [](Sizes s) {
          return Inputs{normal({s[0], s[1]}, 2), uniform_parameter({s[1]}, 0.5, 1.5), normal_parameter({s[1]})};
        },
    .op = [](Tape& tape, const Tensors& in, Sizes) { return Tensors{layer_norm(tape, in[0], in[1], in[2], eps)}; },
    .reference = [](const Arrays& in, Sizes) { return Arrays{norm_reference(in[0], in[1], in[2], true)}; },
    .reduction = longest_sum,
};
MIXTAPE_OP_TEST(layer_norm_test);

const OpTest layer_norm_without_bias_test{
    .name = "layer_norm without bias",
    .sizes = {{3, 37}},
    .inputs =
        [](Sizes s) {
          return Inputs{normal({s[0], s[1]}), normal_parameter({s[1]}), absent()};
        },
    .op = [](Tape& tape, const Tensors& in, Sizes) { return Tensors{layer_norm(tape, in[0], in[1], {}, eps)}; },
    .reference = [](const Arrays& in, Sizes) { return Arrays{norm_reference(in[0], in[1], {}, true)}; },
    .reduction = longest_sum,
};
MIXTAPE_OP_TEST(layer_norm_without_bias_test);

const OpTest rms_norm_test{
    .name = "rms_norm",
    .sizes = norm_sizes,
    .inputs =
        [](Sizes s) {
          return Inputs{normal({s[0], s[1]}), uniform_parameter({s[1]}, 0.5, 1.5)};
        },
    .op = [](Tape& tape, const Tensors& in, Sizes) { return Tensors{rms_norm(tape, in[0], in[1], eps)}; },
    .reference = [](const Arrays& in, Sizes) { return Arrays{norm_reference(in[0], in[1], {}, false)}; },
    .reduction = longest_sum,
};
MIXTAPE_OP_TEST(rms_norm_test);

const OpTest residual_layer_norm_test{
    .name = "residual_layer_norm",
    .sizes = norm_sizes,
    .inputs =
        [](Sizes s) {
          return Inputs{normal({s[0], s[1]}), normal({s[0], s[1]}), uniform_parameter({s[1]}, 0.5, 1.5),
                        normal_parameter({s[1]})};
        },
    .op =
        [](Tape& tape, const Tensors& in, Sizes) {
          const Residual r = residual_layer_norm(tape, in[0], in[1], in[2], in[3], eps);
          return Tensors{r.h, r.y};
        },
    .reference =
        [](const Arrays& in, Sizes) {
          const Array h = sum(in[0], in[1]);
          return Arrays{h, norm_reference(h, in[2], in[3], true)};
        },
    .reduction = longest_sum,
    .roundings = 3,
};
MIXTAPE_OP_TEST(residual_layer_norm_test);

const OpTest residual_rms_norm_test{
    .name = "residual_rms_norm",
    .sizes = norm_sizes,
    .inputs =
        [](Sizes s) {
          return Inputs{normal({s[0], s[1]}), normal({s[0], s[1]}), uniform_parameter({s[1]}, 0.5, 1.5)};
        },
    .op =
        [](Tape& tape, const Tensors& in, Sizes) {
          const Residual r = residual_rms_norm(tape, in[0], in[1], in[2], eps);
          return Tensors{r.h, r.y};
        },
    .reference =
        [](const Arrays& in, Sizes) {
          const Array h = sum(in[0], in[1]);
          return Arrays{h, norm_reference(h, in[2], {}, false)};
        },
    .reduction = longest_sum,
    .roundings = 3,
};
MIXTAPE_OP_TEST(residual_rms_norm_test);

// What the harness does not reach: a large mean, gradients into shared memory, frozen weights, views.
class Norm : public testing::Test {
 protected:
  Norm() { backend.bind(arena); }
  Tensor make(Shape shape, float factor, float offset = 0) {
    const Tensor t = backend.make(shape, DType::f32);
    for (int64_t i = 0; i < t.count(); ++i)
      t.data<float>()[i] = offset + factor * float(std::sin(0.7 * double(i) + shape.count()));
    return t;
  }
  static std::vector<float> values(const Tensor& t) { return {t.data<float>(), t.data<float>() + t.count()}; }

  CpuBackend backend;
  HostMemory memory{int64_t(1) << 24};
  Arena arena{memory.data(), memory.bytes(), Arena::Guards::on};
};

TEST_F(Norm, KeepsItsVarianceUnderALargeMean) {
  const Tensor x = make({4, 300}, 1, 4096), weight = make({300}, 0, 1), y = make({4, 300}, 0);
  backend.norm().norm({.y = y, .x = x, .weight = weight, .eps = 1e-5f, .center = true});
  for (int64_t r = 0; r < 4; ++r) {
    double squares = 0;
    for (int64_t c = 0; c < 300; ++c) squares += std::pow(double(y.data<float>()[r * 300 + c]), 2) / 300;
    EXPECT_NEAR(squares, 1, 1e-3);
  }
}

TEST_F(Norm, BackwardMayWriteWhereItsGradientsLie) {
  const int64_t rows = 9, n = 45;
  const Tensor h = make({rows, n}, 2), weight = make({n}, 1, 1), mean = make({rows}, 0), inv = make({rows}, 0);
  const Tensor y = make({rows, n}, 0), dy = make({rows, n}, 1, 0.1f), dh = make({rows, n}, 3);
  const Tensor dx = make({rows, n}, 0), dweight = make({n}, 0);
  backend.norm().norm({.y = y, .mean = mean, .inv = inv, .x = h, .weight = weight, .eps = 1e-5f, .center = true});
  NormBackward a{.dx = {dx, Write::overwrite}, .dy = dy, .dh = dh, .h = h, .weight = weight, .mean = mean, .inv = inv};
  a.center = true;
  backend.norm().norm_backward(a);  // the weight is frozen
  const auto expected = values(dx);

  a.dweight = {dweight, Write::overwrite};
  a.dx.tensor = dh;
  backend.norm().norm_backward(a);
  EXPECT_EQ(values(dh), expected);

  a.dh = {};
  a.dx.tensor = dx;
  backend.norm().norm_backward(a);
  const auto without_dh = values(dx);
  a.dx.tensor = dy;
  backend.norm().norm_backward(a);
  EXPECT_EQ(values(dy), without_dh);
}

TEST_F(Norm, TakesViews) {
  const Tensor wide = make({6, 50}, 1), weight = make({20}, 1, 1), wide_y = make({6, 50}, 0), y = make({6, 20}, 0);
  const Tensor packed = make({6, 20}, 0);
  for (int64_t r = 0; r < 6; ++r)
    for (int64_t c = 0; c < 20; ++c) packed.data<float>()[r * 20 + c] = wide.data<float>()[r * 50 + 7 + c];
  const auto before = values(wide_y);
  backend.norm().norm({.y = y, .x = packed, .weight = weight, .eps = 1e-5f, .center = false});
  backend.norm().norm(
      {.y = wide_y.columns(7, 20), .x = wide.columns(7, 20), .weight = weight, .eps = 1e-5f, .center = false});
  for (int64_t r = 0; r < 6; ++r)
    for (int64_t c = 0; c < 50; ++c)
      EXPECT_EQ(wide_y.data<float>()[r * 50 + c],
                c >= 7 && c < 27 ? y.data<float>()[r * 20 + c - 7] : before[r * 50 + c]);
}

}  // namespace
}  // namespace mixtape
