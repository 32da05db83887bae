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

constexpr Operation<NoSpec> add_operation{
    .name = "add",
    .forward = [](const Forward& f,
                  const NoSpec&) { f.backend().cast().add({.y = f.out(0), .a = f.in(0), .b = f.in(1)}); },
    .backward =
        [](const Backward& b, const NoSpec&) {
          b.give(0, b.dy(0));
          b.give(1, b.dy(0));
        },
};

}  // namespace

Tensor cast(Tape& tape, const Tensor& x, DType dtype) {
  if (x.dtype() == dtype) return x;
  return tape.run(cast_operation, {x}, Makes{.outputs = {{x.shape(), dtype}}}, NoSpec{});
}

Tensor add(Tape& tape, const Tensor& a, const Tensor& b) {
  expect_shape("add", "b", b, a.shape());
  expect_dtype("add", "b", b, a.dtype());
  return tape.run(add_operation, {a, b}, Makes{.outputs = {like(a)}}, NoSpec{});
}

}  // namespace mixtape
