#include "core/ops/norm.h"

namespace mixtape {
namespace {

struct NormSpec {
  float eps;
  bool center;  // layer norm
};

// Saved: inv, and for layer norm mean (saved(1) is absent otherwise).
constexpr Operation<NormSpec> norm_operation{
    .name = "norm",
    .forward =
        [](const Forward& f, const NormSpec& spec) {
          f.backend().norm().norm({.y = f.out(0),
                                   .mean = f.saved(1),
                                   .inv = f.saved(0),
                                   .x = f.in(0),
                                   .weight = f.in(1),
                                   .bias = f.in(2),
                                   .eps = spec.eps,
                                   .center = spec.center});
        },
    .backward =
        [](const Backward& b, const NormSpec& spec) {
          b.backend().norm().norm_backward({.dx = b.grad(0),
                                            .dweight = b.grad(1),
                                            .dbias = b.grad(2),
                                            .dy = b.dy(0),
                                            .h = b.in(0),
                                            .weight = b.in(1),
                                            .mean = b.saved(1),
                                            .inv = b.saved(0),
                                            .center = spec.center});
        },
    .needs = {.inputs = {0, 1, 2}},  // the bias: `remake` reads it
    .remake = [](const Forward& f, const NormSpec& spec) { norm_operation.forward(f, spec); },
};

// Outputs: h = x + branch, and y = norm(h). The gradient of x and of branch is one tensor, handed to both.
constexpr Operation<NormSpec> residual_norm_operation{
    .name = "residual_norm",
    .forward =
        [](const Forward& f, const NormSpec& spec) {
          f.backend().norm().norm({.y = f.out(1),
                                   .h = f.out(0),
                                   .mean = f.saved(1),
                                   .inv = f.saved(0),
                                   .x = f.in(0),
                                   .branch = f.in(1),
                                   .weight = f.in(2),
                                   .bias = f.in(3),
                                   .eps = spec.eps,
                                   .center = spec.center});
        },
    .backward =
        [](const Backward& b, const NormSpec& spec) {
          if (!b.dy(1)) {  // nothing flows into the norm
            b.give(0, b.dy(0));
            b.give(1, b.dy(0));
            return;
          }
          const Tensor dx = b.dy(0) ? b.reuse_dy(0) : b.reuse_dy(1);
          b.backend().norm().norm_backward({.dx = {dx, Write::overwrite},
                                            .dweight = b.grad(2),
                                            .dbias = b.grad(3),
                                            .dy = b.dy(1),
                                            .dh = b.dy(0),
                                            .h = b.out(0),
                                            .weight = b.in(2),
                                            .mean = b.saved(1),
                                            .inv = b.saved(0),
                                            .center = spec.center});
          b.give(0, dx);
          b.give(1, dx);
        },
    .needs = {.inputs = {2, 3}, .outputs = {0}},
    .remake =
        [](const Forward& f, const NormSpec& spec) {
          f.backend().norm().norm({.y = f.out(1),
                                   .mean = f.saved(1),
                                   .inv = f.saved(0),
                                   .x = f.out(0),
                                   .weight = f.in(2),
                                   .bias = f.in(3),
                                   .eps = spec.eps,
                                   .center = spec.center});
        },
    .remakes = 1,
};

Makes makes(const Tensor& x, int outputs, bool center) {
  Makes m{.outputs = {like(x)}, .saved = {{{x.rows()}, DType::f32}}};
  if (outputs == 2) m.outputs.push_back(like(x));
  if (center) m.saved.push_back({{x.rows()}, DType::f32});
  return m;
}

void check_norm(const char* op, const Tensor& x, const Tensor& weight, const Tensor& bias) {
  expect_shape(op, "weight", weight, {x.cols()});
  if (bias) expect_shape(op, "bias", bias, {x.cols()});
}

Residual residual_norm(Tape& tape, const Tensor& x, const Tensor& branch, const Tensor& weight, const Tensor& bias,
                       NormSpec spec) {
  Outputs out = tape.run(residual_norm_operation, {x, branch, weight, bias}, makes(x, 2, spec.center), spec);
  return {out[0], out[1]};
}

}  // namespace

Tensor layer_norm(Tape& tape, const Tensor& x, const Tensor& weight, const Tensor& bias, float eps) {
  check_norm("layer_norm", x, weight, bias);
  return tape.run(norm_operation, {x, weight, bias}, makes(x, 1, true), NormSpec{eps, true});
}

Tensor rms_norm(Tape& tape, const Tensor& x, const Tensor& weight, float eps) {
  check_norm("rms_norm", x, weight, {});
  return tape.run(norm_operation, {x, weight, {}}, makes(x, 1, false), NormSpec{eps, false});
}

Residual residual_layer_norm(Tape& tape, const Tensor& x, const Tensor& branch, const Tensor& weight,
                             const Tensor& bias, float eps) {
  check_norm("residual_layer_norm", x, weight, bias);
  expect_shape("residual_layer_norm", "branch", branch, x.shape());
  return residual_norm(tape, x, branch, weight, bias, {eps, true});
}

Residual residual_rms_norm(Tape& tape, const Tensor& x, const Tensor& branch, const Tensor& weight, float eps) {
  check_norm("residual_rms_norm", x, weight, {});
  expect_shape("residual_rms_norm", "branch", branch, x.shape());
  return residual_norm(tape, x, branch, weight, {}, {eps, false});
}

}  // namespace mixtape
