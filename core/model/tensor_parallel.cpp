#include "core/model/tensor_parallel.h"

#include <algorithm>

#include "core/ops/cast.h"

namespace mixtape {
namespace {

constexpr int64_t piece_elements = 1 << 20;  // of 16 bits, that are widened at a time

void copy(Backend& backend, const Tensor& to, const Tensor& from) {
  backend.cast().convert({.y = {to, Write::overwrite}, .x = from});
}

// In place. 16 bits are summed in fp32 and rounded once.
void sum_over(Exchange& ranks, Backend& backend, const Tensor& t) {
  if (t.dtype() == DType::f32) {
    if (!backend.planning()) ranks.wait(ranks.all_reduce(t));
    return;
  }
  const int64_t count = t.count();
  const Tensor flat = t.reshaped({count});
  const Tensor wide = backend.workspace({std::min(count, piece_elements)}, DType::f32);
  if (backend.planning()) return;
  for (int64_t at = 0; at < count; at += piece_elements) {
    const Tensor piece = flat.columns(at, std::min(piece_elements, count - at));
    const Tensor sum = wide.columns(0, piece.count());
    copy(backend, sum, piece);
    ranks.wait(ranks.all_reduce(sum));
    copy(backend, piece, sum);
  }
}

// A matrix whose rows ranks share out.
struct Rows {
  const Exchange& ranks;
  int64_t rows, cols;
  Run of(int rank) const { return part_of(rows, {rank, ranks.size()}); }
  Run here() const { return of(ranks.rank()); }
  std::vector<int64_t> counts() const {
    std::vector<int64_t> counts;
    for (int r = 0; r < ranks.size(); ++r) counts.push_back(of(r).count * cols);
    return counts;
  }
};

// to = all rows, of which each rank has its own.
void gather_rows(Exchange& ranks, Backend& backend, const Tensor& to, const Tensor& own) {
  const Rows rows{ranks, to.rows(), to.cols()};
  if (backend.planning()) return;
  copy(backend, to.slice(rows.here().begin, own.rows()), own);
  ranks.wait(ranks.all_gather(to, rows.counts()));
}

// own = this rank's rows of the sum.
void scatter_sum(Exchange& ranks, Backend& backend, const Tensor& own, const Tensor& from) {
  const Rows rows{ranks, from.rows(), from.cols()};
  Tensor wide = from, sum = own;
  if (from.dtype() != DType::f32) {
    wide = backend.workspace(from.shape(), DType::f32);
    sum = backend.workspace(own.shape(), DType::f32);
  }
  if (backend.planning()) return;
  if (from.dtype() != DType::f32) copy(backend, wide, from);
  ranks.wait(ranks.reduce_scatter(wide, rows.counts(), sum));
  if (from.dtype() != DType::f32) copy(backend, own, sum);
}

struct RanksSpec {
  Exchange* ranks;
};

constexpr Operation<RanksSpec> spread_operation{
    .name = "spread",
    .forward = [](const Forward& f,
                  const RanksSpec& spec) { gather_rows(*spec.ranks, f.backend(), f.out(0), f.in(0)); },
    .backward =
        [](const Backward& b, const RanksSpec& spec) {
          const Rows rows{*spec.ranks, b.dy(0).rows(), b.dy(0).cols()};
          const Tensor dx = b.backend().make({rows.here().count, rows.cols}, b.dy(0).dtype());
          scatter_sum(*spec.ranks, b.backend(), dx, b.dy(0));
          b.give(0, dx);
        },
    .needs = {.inputs = {0}},
    .remake = [](const Forward& f, const RanksSpec& spec) { spread_operation.forward(f, spec); },
};

constexpr Operation<RanksSpec> sum_operation{
    .name = "sum_of_ranks",
    .forward = [](const Forward& f,
                  const RanksSpec& spec) { scatter_sum(*spec.ranks, f.backend(), f.out(0), f.in(0)); },
    .backward =
        [](const Backward& b, const RanksSpec& spec) {
          const Grad dx = b.grad(0);
          if (dx.accumulates()) throw Error("sum_of_ranks: a rank's summand has one reader");
          gather_rows(*spec.ranks, b.backend(), dx.tensor, b.dy(0));
        },
};

// The same where each rank has the whole stream.
constexpr Operation<RanksSpec> sum_of_all_operation{
    .name = "sum_of_ranks",
    .forward =
        [](const Forward& f, const RanksSpec& spec) {
          if (f.out(0).raw() != f.in(0).raw()) copy(f.backend(), f.out(0), f.in(0));
          sum_over(*spec.ranks, f.backend(), f.out(0));
        },
    .backward = [](const Backward& b, const RanksSpec&) { b.give(0, b.dy(0)); },
};

constexpr Operation<RanksSpec> whole_operation{
    .name = "whole",
    .forward = [](const Forward& f,
                  const RanksSpec& spec) { gather_rows(*spec.ranks, f.backend(), f.out(0), f.in(0)); },
    .backward =
        [](const Backward& b, const RanksSpec& spec) {
          const Run here = Rows{*spec.ranks, b.dy(0).rows(), b.dy(0).cols()}.here();
          b.backend().cast().convert({.y = b.grad(0), .x = b.dy(0).slice(here.begin, here.count)});
        },
};

constexpr Operation<RanksSpec> add_up_operation{
    .name = "add_up",
    .forward = [](const Forward&, const RanksSpec&) {},
    .backward =
        [](const Backward& b, const RanksSpec& spec) {
          const Tensor dx = b.reuse_dy(0);
          if (!b.owns_dy(0)) copy(b.backend(), dx, b.dy(0));
          sum_over(*spec.ranks, b.backend(), dx);
          b.give(0, dx);
        },
};

}  // namespace

TensorParallel TensorParallel::through(Exchange& exchange) const {
  if (exchange.size() != size()) throw Error("tensor parallel: {} ranks, of which {} meet", size(), exchange.size());
  TensorParallel connected = *this;
  connected.exchange_ = &exchange;
  return connected;
}

Exchange& TensorParallel::exchange() const {
  if (!exchange_) throw Error("tensor parallel: {} ranks have nothing to exchange through", size());
  return *exchange_;
}

Tensor TensorParallel::spread(Tape& tape, const Tensor& x, int64_t rows) const {
  if (!cuts_stream(tape)) return x;
  return tape.run(spread_operation, {x}, Makes{.outputs = {{{rows, x.cols()}, x.dtype()}}}, RanksSpec{&exchange()});
}

Tensor TensorParallel::sum(Tape& tape, Tensor x) const {
  if (size() == 1) return x;
  if (!tape.training())  // a copy into the list, not a move: the tape counts both holders (Makes::in_place)
    return tape.run(sum_of_all_operation, {x}, Makes{.outputs = {like(x)}, .in_place = true}, RanksSpec{&exchange()});
  if (x.rows() < size()) throw Error("tensor parallel: {} rows for {} ranks", x.rows(), size());
  return tape.run(sum_operation, {x}, Makes{.outputs = {{{part(x.rows()).count, x.cols()}, x.dtype()}}},
                  RanksSpec{&exchange()});
}

Tensor TensorParallel::whole(Tape& tape, const Tensor& x, int64_t rows) const {
  if (!cuts_stream(tape)) return x;
  return tape.run(whole_operation, {x}, Makes{.outputs = {{{rows, x.cols()}, x.dtype()}}}, RanksSpec{&exchange()});
}

Tensor TensorParallel::add_up(Tape& tape, const Tensor& x) const {
  if (!cuts_stream(tape) || !x) return x;
  return tape.run(add_up_operation, {x}, Makes{.outputs = {like(x)}, .renames = true}, RanksSpec{&exchange()});
}

Tensor TensorParallel::gather(Backend& backend, const Tensor& logits, int64_t tokens) const {
  if (size() == 1) return logits;
  const Tensor all = backend.make({logits.rows(), tokens}, logits.dtype());
  const Run here = part(tokens);
  if (!backend.planning()) {
    backend.zero(all);
    copy(backend, all.columns(here.begin, here.count), logits);
  }
  sum_over(exchange(), backend, all);
  return all;
}

}  // namespace mixtape
