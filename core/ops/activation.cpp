#include "core/ops/activation.h"

namespace mixtape {
namespace {

struct ActivationSpec {
  Unary kind;
};

constexpr Operation<ActivationSpec> activation_operation{
    .name = "activation",
    .forward =
        [](const Forward& f, const ActivationSpec& spec) {
          f.backend().activation().activation({.y = f.out(0), .x = f.in(0), .kind = spec.kind});
        },
    .backward =
        [](const Backward& b, const ActivationSpec& spec) {
          b.backend().activation().activation_backward(
              {.dx = b.grad(0), .dy = b.dy(0), .x = b.in(0), .kind = spec.kind});
        },
    .needs = {.inputs = {0}},
    .remake = [](const Forward& f, const ActivationSpec& spec) { activation_operation.forward(f, spec); },
};

constexpr Operation<ActivationSpec> gated_operation{
    .name = "gated_activation",
    .forward =
        [](const Forward& f, const ActivationSpec& spec) {
          f.backend().activation().gated({.y = f.out(0), .x = f.in(0), .kind = spec.kind});
        },
    .backward =
        [](const Backward& b, const ActivationSpec& spec) {
          b.backend().activation().gated_backward({.dx = b.grad(0), .dy = b.dy(0), .x = b.in(0), .kind = spec.kind});
        },
    .needs = {.inputs = {0}},
    .remake = [](const Forward& f, const ActivationSpec& spec) { gated_operation.forward(f, spec); },
};

}  // namespace

Tensor activation(Tape& tape, const Tensor& x, Unary kind) {
  return tape.run(activation_operation, {x}, Makes{.outputs = {like(x)}}, ActivationSpec{kind});
}

Tensor gated_activation(Tape& tape, const Tensor& x, Unary kind) {
  if (x.cols() % 2) throw Error("gated_activation: x is {}, expected an even number of columns", x.shape());
  const Make y{{x.rows(), x.cols() / 2}, x.dtype()};
  return tape.run(gated_operation, {x}, Makes{.outputs = {y}}, ActivationSpec{kind});
}

}  // namespace mixtape
