#include "core/ops/activation.h"

#include "tests/support/op_test.h"

namespace mixtape {
namespace {

double unary_value(Unary kind, double x) {
  switch (kind) {
    case Unary::relu:
      return x > 0 ? x : 0;
    case Unary::gelu:
      return x / 2 * (1 + std::erf(x / std::sqrt(2.0)));
    case Unary::gelu_tanh:
      return x / 2 * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case Unary::silu:
      return x / (1 + std::exp(-x));
    case Unary::tanh:
      return std::tanh(x);
    case Unary::none:
      break;
  }
  return x;
}

template <Unary kind>
const OpTest activation_of{
    .name = fmt::format("activation {}", int(kind)),
    .sizes = {{1, 1}, {3, 37}, {5, 768}, {9, 4099}},
    .inputs =
        [](Sizes s) {
          return Inputs{normal({s[0], s[1]}, 2)};
        },
    .op = [](Tape& tape, const Tensors& in, Sizes) { return Tensors{activation(tape, in[0], kind)}; },
    .reference =
        [](const Arrays& in, Sizes) {
          Array y(in[0].shape());
          for (int64_t i = 0; i < y.count(); ++i) y[i] = unary_value(kind, in[0][i]);
          return Arrays{y};
        },
};

template <Unary kind>
const OpTest gated_by{
    .name = fmt::format("gated activation {}", int(kind)),
    .sizes = {{1, 1}, {3, 37}, {2, 768}, {11, 2051}},
    .inputs =
        [](Sizes s) {
          return Inputs{normal({s[0], 2 * s[1]}, 2)};
        },
    .op = [](Tape& tape, const Tensors& in, Sizes) { return Tensors{gated_activation(tape, in[0], kind)}; },
    .reference =
        [](const Arrays& in, Sizes s) {
          Array y({s[0], s[1]});
          for (int64_t r = 0; r < s[0]; ++r)
            for (int64_t c = 0; c < s[1]; ++c) y(r, c) = unary_value(kind, in[0](r, c)) * in[0](r, s[1] + c);
          return Arrays{y};
        },
};

const OpTest &relu = activation_of<Unary::relu>, &gelu = activation_of<Unary::gelu>,
             &gelu_tanh = activation_of<Unary::gelu_tanh>, &silu = activation_of<Unary::silu>,
             &hyperbolic_tangent = activation_of<Unary::tanh>;
MIXTAPE_OP_TEST(relu);
MIXTAPE_OP_TEST(gelu);
MIXTAPE_OP_TEST(gelu_tanh);
MIXTAPE_OP_TEST(silu);
MIXTAPE_OP_TEST(hyperbolic_tangent);

const OpTest &reglu = gated_by<Unary::relu>, &geglu = gated_by<Unary::gelu>, &geglu_tanh = gated_by<Unary::gelu_tanh>,
             &swiglu = gated_by<Unary::silu>;
MIXTAPE_OP_TEST(reglu);
MIXTAPE_OP_TEST(geglu);
MIXTAPE_OP_TEST(geglu_tanh);
MIXTAPE_OP_TEST(swiglu);

// The ends of the range: nothing overflows on the way, NaN stays NaN, and relu's derivative at 0 is 0.
TEST(Activation, Extremes) {
  CpuBackend backend;
  const std::vector<float> in = {0.f, -0.f, 30.f, -30.f, 1e30f, -1e30f, 1e-40f, NAN};
  const int64_t n = int64_t(in.size());
  for (const Unary kind : {Unary::relu, Unary::gelu, Unary::gelu_tanh, Unary::silu}) {
    std::vector<float> x = in, y(in.size()), dy(in.size(), 1.f), dx(in.size());
    const Shape shape{n};
    HostMemory memory(1 << 16);
    Arena arena(memory.data(), memory.bytes());
    backend.bind(arena);
    const auto tensor = [&](std::vector<float>& v) { return Tensor(v.data(), shape, DType::f32); };
    backend.activation().activation({.y = tensor(y), .x = tensor(x), .kind = kind});
    backend.activation().activation_backward(
        {.dx = {tensor(dx), Write::overwrite}, .dy = tensor(dy), .x = tensor(x), .kind = kind});
    EXPECT_EQ(y[0], 0);
    EXPECT_EQ(y[2], 30);
    EXPECT_NEAR(y[3], 0, 1e-11);
    EXPECT_EQ(y[4], 1e30f);
    EXPECT_EQ(y[5], 0);
    EXPECT_TRUE(std::isnan(y[7]));
    EXPECT_EQ(dx[0], kind == Unary::relu ? 0.f : 0.5f);
    EXPECT_EQ(dx[2], 1);
    EXPECT_NEAR(dx[3], 0, 1e-10);
    EXPECT_EQ(dx[4], 1);
    EXPECT_EQ(dx[5], 0);
  }
}

TEST(Activation, TanhIsFlatAtTheEnds) {
  CpuBackend backend;
  const std::vector<float> in = {0.f, 1e-20f, 30.f, -30.f, INFINITY, -INFINITY, NAN};
  const int64_t n = int64_t(in.size());
  std::vector<float> x = in, y(in.size()), dy(in.size(), 1.f), dx(in.size());
  const auto tensor = [&](std::vector<float>& v) { return Tensor(v.data(), {1, n}, DType::f32); };
  Arena arena;
  HostMemory memory(1 << 16);
  Arena real(memory.data(), memory.bytes());
  backend.bind(real);
  backend.activation().activation({.y = tensor(y), .x = tensor(x), .kind = Unary::tanh});
  backend.activation().activation_backward(
      {.dx = {tensor(dx), Write::overwrite}, .dy = tensor(dy), .x = tensor(x), .kind = Unary::tanh});
  for (int64_t i = 0; i < 6; ++i) {
    EXPECT_FLOAT_EQ(y[i], std::tanh(in[i])) << in[i];
    EXPECT_EQ(dx[i], std::abs(in[i]) > 1 ? 0.f : 1.f) << in[i];
  }
  EXPECT_TRUE(std::isnan(y[6]));
}

}  // namespace
}  // namespace mixtape
