#include "core/ops/cast.h"

namespace mixtape {
namespace {

struct NoSpec {};

constexpr Operation<NoSpec> cast_operation{
    .name = "cast",
    .forward =
        [](const Forward& f, const NoSpec&) {
          f.backend().cast().convert({.y = {f.out(0), Write::overwrite}, .x = f.in(0)});
        },
    .backward = [](const Backward& b, const NoSpec&) { b.backend().cast().convert({.y = b.grad(0), .x = b.dy(0)}); },
};

struct AddSpec {
  float scale;  // of the second summand
};

constexpr Operation<AddSpec> add_operation{
    .name = "add",
    .forward =
        [](const Forward& f, const AddSpec& spec) {
          CastKernels& kernels = f.backend().cast();
          if (spec.scale == 1) return kernels.add({.y = f.out(0), .a = f.in(0), .b = f.in(1)});
          kernels.convert({.y = {f.out(0), Write::overwrite}, .x = f.in(0)});
          kernels.convert({.y = {f.out(0), Write::accumulate}, .x = f.in(1), .scale = spec.scale});
        },
    .backward =
        [](const Backward& b, const AddSpec& spec) {
          b.give(0, b.dy(0));
          if (spec.scale == 1)
            b.give(1, b.dy(0));
          else if (b.wants(1))
            b.backend().cast().convert({.y = b.grad(1), .x = b.dy(0), .scale = spec.scale});
        },
};

}  // namespace

Tensor cast(Tape& tape, const Tensor& x, DType dtype) {
  if (x.dtype() == dtype) return x;
  return tape.run(cast_operation, {x}, Makes{.outputs = {{x.shape(), dtype}}}, NoSpec{});
}

Tensor add(Tape& tape, const Tensor& a, const Tensor& b, float scale) {
  expect_shape("add", "b", b, a.shape());
  expect_dtype("add", "b", b, a.dtype());
  return tape.run(add_operation, {a, b}, Makes{.outputs = {like(a)}}, AddSpec{scale});
}

}  // namespace mixtape
