#include "core/ops/embedding.h"

#include <cmath>

namespace mixtape {
namespace {

constexpr Operation<EmbeddingSpec> embedding_operation{
    .name = "embedding",
    .forward =
        [](const Forward& f, const EmbeddingSpec& spec) {
          f.backend().embedding().embedding(
              {.y = f.out(0), .ids = {f.in(0), f.in(1), f.in(2)}, .tables = {f.in(3), f.in(4), f.in(5)}, .spec = spec});
        },
    .backward =
        [](const Backward& b, const EmbeddingSpec& spec) {
          b.backend().embedding().embedding_backward({.dtokens = b.grad(3),
                                                      .dpositions = b.grad(4),
                                                      .dtypes = b.grad(5),
                                                      .dy = b.dy(0),
                                                      .ids = {b.in(0), b.in(1), b.in(2)},
                                                      .spec = spec});
        },
};

struct GatherRowsSpec {};

constexpr Operation<GatherRowsSpec> gather_rows_operation{
    .name = "gather_rows",
    .forward =
        [](const Forward& f, const GatherRowsSpec&) {
          f.backend().embedding().gather_rows({.y = f.out(0), .x = f.in(0), .index = f.in(1)});
        },
    .backward =
        [](const Backward& b, const GatherRowsSpec&) {
          b.backend().embedding().gather_rows_backward({.dx = b.grad(0), .dy = b.dy(0), .index = b.in(1)});
        },
};

void check_ids(const char* argument, const Tensor& ids, int64_t rows) {
  expect_shape("embedding", argument, ids, {rows});
  expect_dtype("embedding", argument, ids, DType::i32);
}

}  // namespace

Tensor embedding(Tape& tape, const EmbeddingIds& ids, const EmbeddingTables& tables, const EmbeddingSpec& spec) {
  const int64_t rows = ids.tokens.count(), d = tables.tokens.cols();
  const DType type = tables.tokens.dtype();
  check_ids("token ids", ids.tokens, rows);
  if (tables.positions) {
    check_ids("positions", ids.positions, rows);
    expect_shape("embedding", "the table of positions", tables.positions, {tables.positions.rows(), d});
    if (tables.positions.value() >= 0 || tables.positions.dtype() != DType::f32)
      expect_dtype("embedding", "the table of positions", tables.positions, type);
  }
  if (tables.types) {
    if (ids.types) check_ids("token types", ids.types, rows);
    expect_shape("embedding", "the table of types", tables.types, {tables.types.rows(), d});
    expect_dtype("embedding", "the table of types", tables.types, type);
  }
  return tape.run(embedding_operation,
                  {ids.tokens, ids.positions, ids.types, tables.tokens, tables.positions, tables.types},
                  Makes{.outputs = {{{rows, d}, type}}}, spec);
}

void sinusoidal_positions(float* table, int64_t positions, int64_t d) {
  for (int64_t p = 0; p < positions; ++p)
    for (int64_t c = 0; c < d; ++c) {
      const double angle = double(p) * std::pow(10000.0, -double(c / 2 * 2) / double(d));
      table[p * d + c] = float(c % 2 ? std::cos(angle) : std::sin(angle));
    }
}

Tensor gather_rows(Tape& tape, const Tensor& x, const Tensor& index) {
  expect_shape("gather_rows", "index", index, {index.count()});
  expect_dtype("gather_rows", "index", index, DType::i32);
  return tape.run(gather_rows_operation, {x, index}, Makes{.outputs = {{{index.count(), x.cols()}, x.dtype()}}},
                  GatherRowsSpec{});
}

}  // namespace mixtape
