#include "core/ops/matmul.h"

namespace mixtape {
namespace {

struct LinearSpec {
  Unary activation;
  bool remakes = false;  // the tape will drop y and make it again
};

constexpr Operation<LinearSpec> linear_operation{
    .name = "linear",
    .forward =
        [](const Forward& f, const LinearSpec&) {
          f.backend().matmul().linear({.y = f.out(0), .x = f.in(0), .weight = f.in(1), .bias = f.in(2)});
        },
    .backward =
        [](const Backward& b, const LinearSpec&) {
          b.backend().matmul().linear_backward({.dx = b.grad(0),
                                                .dweight = b.grad(1),
                                                .dbias = b.grad(2),
                                                .dy = b.dy(0),
                                                .x = b.in(0),
                                                .weight = b.in(1),
                                                .dy_is_scratch = b.owns_dy(0)});
        },
    .needs = {.inputs = {0, 1}},
};

// With an activation the sum before it is kept: backward needs it, and the output can be remade from it.
constexpr Operation<LinearSpec> linear_activation_operation{
    .name = "linear_activation",
    .forward =
        [](const Forward& f, const LinearSpec& spec) {
          f.backend().matmul().linear({.y = f.out(0),
                                       .pre = f.saved(0),
                                       .x = f.in(0),
                                       .weight = f.in(1),
                                       .bias = f.in(2),
                                       .activation = spec.activation,
                                       .y_is_remade = spec.remakes});
        },
    .backward =
        [](const Backward& b, const LinearSpec& spec) {
          b.backend().matmul().linear_backward({.dx = b.grad(0),
                                                .dweight = b.grad(1),
                                                .dbias = b.grad(2),
                                                .dy = b.dy(0),
                                                .pre = b.saved(0),
                                                .x = b.in(0),
                                                .weight = b.in(1),
                                                .activation = spec.activation,
                                                .dy_is_scratch = b.owns_dy(0)});
        },
    .needs = {.inputs = {0, 1}},
    .remake =
        [](const Forward& f, const LinearSpec& spec) {
          f.backend().activation().activation({.y = f.out(0), .x = f.saved(0), .kind = spec.activation});
        },
};

}  // namespace

Tensor linear(Tape& tape, const Tensor& x, const Tensor& weight, const Tensor& bias, Unary activation) {
  const int64_t out = weight.rows();
  expect_shape("linear", "weight", weight, {out, x.cols()});
  if (bias) expect_shape("linear", "bias", bias, {out});
  const Make y{{x.rows(), out}, x.dtype()};
  if (tape.decoding()) {
    const Tensor rows = tape.backend().make(y.shape, y.dtype);
    tape.backend().matmul().linear_rows({.y = rows, .x = x, .weight = weight, .bias = bias, .activation = activation});
    return rows;
  }
  if (activation == Unary::none)
    return tape.run(linear_operation, {x, weight, bias}, Makes{.outputs = {y}}, LinearSpec{activation});
  return tape.run(linear_activation_operation, {x, weight, bias}, Makes{.outputs = {y}, .saved = {y}},
                  LinearSpec{activation, tape.policy() == RecomputePolicy::selective});
}

}  // namespace mixtape
