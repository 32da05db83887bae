#include "core/ops/matmul.h"

#include "core/ops/cast.h"

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

// Operands of a quantised layer, in the order of their scales.
enum Operand : int { input_operand, weight_operand, gradient_operand };

Tensor part(const Tensor& three, Operand operand) { return three ? three.columns(operand, 1) : Tensor(); }

// x rounded, in `to`. With `amax` its largest magnitude is noted: once a step suffices, and a second time does no harm.
Tensor rounded(Backend& backend, const Tensor& x, const Tensor& to, const Quantise& how) {
  Quantise q = how;
  q.y = to;
  q.x = x;
  backend.cast().quantise(q);
  return to;
}

constexpr Operation<OperandCodes> quantised_linear_operation{
    .name = "quantised_linear",
    .forward =
        [](const Forward& f, const OperandCodes& codes) {
          if (f.backend().matmul().linear_of_codes({.y = f.out(0),
                                                    .x = f.in(0),
                                                    .weight = f.in(1),
                                                    .bias = f.in(2),
                                                    .scale = f.in(3),
                                                    .amax = f.in(4),
                                                    .codes = codes}))
            return;
          const auto operand = [&](Operand i) {
            return rounded(f.backend(), f.in(i), f.backend().workspace(f.in(i).shape(), f.in(i).dtype()),
                           {.codes = codes.operands,
                            .scale = part(f.in(3), i),
                            .amax = part(f.in(4), i),
                            .by_rows = codes.by_rows});
          };
          f.backend().matmul().linear(
              {.y = f.out(0), .x = operand(input_operand), .weight = operand(weight_operand), .bias = f.in(2)});
        },
    .backward =
        [](const Backward& b, const OperandCodes& codes) {
          Backend& backend = b.backend();
          const Tensor x = b.in(0), weight = b.in(1), dy = b.dy(0), scale = b.in(3), amax = b.in(4);
          if (b.wants(2)) backend.matmul().linear_backward({.dbias = b.grad(2), .dy = dy, .x = x, .weight = weight});
          if (!b.wants(0) && !b.wants(1)) return;
          const Grad dx = b.grad(0), dweight = b.grad(1);
          if (backend.matmul().linear_of_codes_backward({.dx = dx,
                                                         .dweight = dweight,
                                                         .dy = dy,
                                                         .x = x,
                                                         .weight = weight,
                                                         .scale = scale,
                                                         .amax = amax,
                                                         .codes = codes}))
            return;
          const auto again = [&](const Tensor& t, Operand i) {
            return rounded(backend, t, backend.workspace(t.shape(), t.dtype()),
                           {.codes = codes.operands, .scale = part(scale, i), .by_rows = codes.by_rows});
          };
          const bool keeps = size_of(codes.gradient) > 1;
          const Tensor g = keeps ? dy
                                 : rounded(backend, dy, b.owns_dy(0) ? dy : backend.workspace(dy.shape(), dy.dtype()),
                                           {.codes = codes.gradient,
                                            .scale = part(scale, gradient_operand),
                                            .amax = part(amax, gradient_operand)});
          backend.matmul().linear_backward({.dx = dx,
                                            .dweight = dweight,
                                            .dy = g,
                                            .x = b.wants(1) ? again(x, input_operand) : x,
                                            .weight = b.wants(0) ? again(weight, weight_operand) : weight});
        },
    .needs = {.inputs = {0, 1}},
};

constexpr Operation<LinearSpec> linear_int8_operation{
    .name = "linear_int8",
    .forward =
        [](const Forward& f, const LinearSpec& spec) {
          f.backend().matmul().linear_int8({.y = f.out(0),
                                            .x = f.in(0),
                                            .codes = f.in(1),
                                            .scale = f.in(2),
                                            .bias = f.in(3),
                                            .activation = spec.activation});
        },
    .backward = nullptr,
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

Tensor quantised_linear(Tape& tape, const Tensor& x, const Tensor& weight, const Tensor& bias,
                        const OperandCodes& codes, const Tensor& scale, const Tensor& amax) {
  const int64_t out = weight.rows();
  expect_shape("quantised_linear", "weight", weight, {out, x.cols()});
  if (bias) expect_shape("quantised_linear", "bias", bias, {out});
  for (const auto& [name, t] : {std::pair{"scale", scale}, {"amax", amax}})
    if (t) expect_shape("quantised_linear", name, t, {3});
  return tape.run(quantised_linear_operation, {x, weight, bias, scale, tape.training() ? amax : Tensor()},
                  Makes{.outputs = {{{x.rows(), out}, x.dtype()}}}, codes);
}

Tensor linear_int8(Tape& tape, const Tensor& x, const Tensor& codes, const Tensor& scale, const Tensor& bias,
                   Unary activation) {
  const int64_t out = codes.rows();
  expect_dtype("linear_int8", "codes", codes, DType::i8);
  expect_shape("linear_int8", "codes", codes, {out, x.cols()});
  expect_dtype("linear_int8", "scale", scale, DType::f32);
  expect_shape("linear_int8", "scale", scale, {out});
  if (bias) expect_shape("linear_int8", "bias", bias, {out});
  if (x.cols() > most_int8_inputs)
    throw Error("linear_int8: {} inputs, at most {}: a sum would not fit 32 bits", x.cols(), most_int8_inputs);
  if (tape.training()) throw Error("linear_int8: codes have no gradient; train with precision.mode int8_qat");
  return tape.run(linear_int8_operation, {x, codes, scale, bias}, Makes{.outputs = {{{x.rows(), out}, x.dtype()}}},
                  LinearSpec{activation});
}

}  // namespace mixtape
