#include "core/model/tensor_parallel.h"

#include <algorithm>

#include "core/ops/cast.h"

namespace mixtape {
namespace {

constexpr int64_t piece_elements = 1 << 20;  // of 16 bits, that are widened at a time

// In place. 16 bits are summed in fp32 and rounded once.
void sum_over(Communicator& ranks, Backend& backend, const Tensor& t) {
  if (t.dtype() == DType::f32) {
    if (!backend.planning()) ranks.all_reduce(std::span(t.data<float>(), size_t(t.count())));
    return;
  }
  const int64_t count = t.count();
  const Tensor flat = t.reshaped({count});
  const Tensor wide = backend.workspace({std::min(count, piece_elements)}, DType::f32);
  if (backend.planning()) return;
  for (int64_t at = 0; at < count; at += piece_elements) {
    const Tensor piece = flat.columns(at, std::min(piece_elements, count - at));
    const Tensor sum = wide.columns(0, piece.count());
    backend.cast().convert({.y = {sum, Write::overwrite}, .x = piece});
    ranks.all_reduce(std::span(sum.data<float>(), size_t(sum.count())));
    backend.cast().convert({.y = {piece, Write::overwrite}, .x = sum});
  }
}

struct RanksSpec {
  Communicator* ranks;
};

constexpr Operation<RanksSpec> spread_operation{
    .name = "spread",
    .forward = [](const Forward&, const RanksSpec&) {},
    .backward =
        [](const Backward& b, const RanksSpec& spec) {
          const Tensor dx = b.reuse_dy(0);
          if (!b.owns_dy(0)) b.backend().cast().convert({.y = {dx, Write::overwrite}, .x = b.dy(0)});
          sum_over(*spec.ranks, b.backend(), dx);
          b.give(0, dx);
        },
};

constexpr Operation<RanksSpec> sum_operation{
    .name = "sum_of_ranks",
    .forward =
        [](const Forward& f, const RanksSpec& spec) {
          if (f.out(0).raw() != f.in(0).raw() || f.backend().planning())
            f.backend().cast().convert({.y = {f.out(0), Write::overwrite}, .x = f.in(0)});
          sum_over(*spec.ranks, f.backend(), f.out(0));
        },
    .backward = [](const Backward& b, const RanksSpec&) { b.give(0, b.dy(0)); },
};

}  // namespace

Tensor TensorParallel::spread(Tape& tape, const Tensor& x) const {
  if (size() == 1) return x;
  return tape.run(spread_operation, {x}, Makes{.outputs = {like(x)}, .renames = true}, RanksSpec{ranks_});
}

Tensor TensorParallel::sum(Tape& tape, Tensor x) const {
  if (size() == 1) return x;
  // A copy into the list, not a move: the tape counts both holders (Makes::in_place).
  return tape.run(sum_operation, {x}, Makes{.outputs = {like(x)}, .in_place = true}, RanksSpec{ranks_});
}

Tensor TensorParallel::gather(Backend& backend, const Tensor& logits, int64_t tokens) const {
  if (size() == 1) return logits;
  const Tensor all = backend.make({logits.rows(), tokens}, logits.dtype());
  const Run here = part(tokens);
  if (!backend.planning()) {
    backend.zero(all);
    backend.cast().convert({.y = {all.columns(here.begin, here.count), Write::overwrite}, .x = logits});
  }
  sum_over(*ranks_, backend, all);
  return all;
}

}  // namespace mixtape
