#include "core/ops/loss.h"

namespace mixtape {
namespace {

constexpr Operation<LossSpec> cross_entropy_operation{
    .name = "cross_entropy",
    .forward =
        [](const Forward& f, const LossSpec& spec) {
          f.backend().loss().cross_entropy({.mean = f.out(0),
                                            .row_loss = f.out(1),
                                            .nll = f.out(2),
                                            .predictions = spec.predict ? f.out(3) : Tensor{},
                                            .dhidden = f.grad(0),
                                            .dweight = f.grad(1),
                                            .dbias = f.grad(2),
                                            .hidden = f.in(0),
                                            .weight = f.in(1),
                                            .bias = f.in(2),
                                            .targets = f.in(3),
                                            .spec = spec,
                                            .state = f.state()});
        },
    .backward = [](const Backward&, const LossSpec&) {},  // forward has delivered the gradients
};

}  // namespace

Loss cross_entropy(Tape& tape, const Tensor& hidden, const Tensor& weight, const Tensor& bias, const Tensor& targets,
                   const LossSpec& spec) {
  expect_shape("cross_entropy", "weight", weight, {weight.rows(), hidden.cols()});
  if (bias) expect_shape("cross_entropy", "bias", bias, {weight.rows()});
  expect_dtype("cross_entropy", "targets", targets, DType::i32);
  expect_shape("cross_entropy", "targets", targets, {hidden.rows()});
  if (!(spec.label_smoothing >= 0 && spec.label_smoothing < 1))
    throw Error("cross_entropy: label smoothing of {}, expected 0 or more and less than 1", spec.label_smoothing);
  const Make scalar{{1}, DType::f32}, rows{{hidden.rows()}, DType::f32};
  Makes makes{.outputs = {scalar, rows, scalar}};
  if (spec.predict) makes.outputs.push_back({{hidden.rows()}, DType::i32});
  Outputs out = tape.run(cross_entropy_operation, {hidden, weight, bias, targets}, makes, spec);
  return {out[0], out[1], out[2], out[3]};
}

}  // namespace mixtape
