#include "core/ops/position.h"

namespace mixtape {
namespace {

constexpr Operation<RopeSpec> rope_operation{
    .name = "rope",
    .forward =
        [](const Forward& f, const RopeSpec& spec) {
          f.backend().position().rope(
              {.y = {f.out(0), Write::overwrite}, .x = f.in(0), .position = f.in(1), .table = f.in(2), .spec = spec});
        },
    .backward =
        [](const Backward& b, const RopeSpec& spec) {
          // The rotation back is done in place where the gradient is ours alone.
          const Tensor dx = b.reuse_dy(0);
          b.backend().position().rope({.y = {dx, Write::overwrite},
                                       .x = b.dy(0),
                                       .position = b.in(1),
                                       .table = b.in(2),
                                       .spec = spec,
                                       .inverse = true});
          b.give(0, dx);
        },
};

}  // namespace

Tensor rope(Tape& tape, Tensor x, const Tensor& position, const Tensor& table, const RopeSpec& spec) {
  if (spec.rotary_dim % 2 || spec.rotary_dim > spec.head_dim)
    throw Error("rope: rotary_dim {}, expected an even number up to head_dim {}", spec.rotary_dim, spec.head_dim);
  if (spec.heads * spec.head_dim > x.cols())
    throw Error("rope: {} heads of {} do not fit x, {}", spec.heads, spec.head_dim, x.shape());
  expect_shape("rope", "position", position, {x.rows()});
  expect_shape("rope", "table", table, {table.rows(), spec.rotary_dim});
  const Make y = like(x);
  // A copy into the list, not a move: the tape counts both holders (Makes::in_place).
  return tape.run(rope_operation, {x, position, table}, Makes{.outputs = {y}, .in_place = true}, spec);
}

}  // namespace mixtape
