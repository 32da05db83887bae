#include "core/ops/embedding.h"

namespace mixtape {
namespace {

constexpr Operation<EmbeddingSpec> embedding_operation{
    .name = "embedding",
    .forward =
        [](const Forward& f, const EmbeddingSpec& spec) {
          f.backend().embedding().embedding({.y = f.out(0),
                                             .ids = f.in(0),
                                             .position = f.in(1),
                                             .token_table = f.in(2),
                                             .position_table = f.in(3),
                                             .spec = spec});
        },
    .backward =
        [](const Backward& b, const EmbeddingSpec& spec) {
          b.backend().embedding().embedding_backward({.dtokens = b.grad(2),
                                                      .dpositions = b.grad(3),
                                                      .dy = b.dy(0),
                                                      .ids = b.in(0),
                                                      .position = b.in(1),
                                                      .spec = spec});
        },
};

}  // namespace

Tensor embedding(Tape& tape, const Tensor& ids, const Tensor& position, const Tensor& token_table,
                 const Tensor& position_table, const EmbeddingSpec& spec) {
  const int64_t rows = ids.count(), d = token_table.cols();
  expect_dtype("embedding", "ids", ids, DType::i32);
  if (position_table) {
    expect_dtype("embedding", "position", position, DType::i32);
    expect_shape("embedding", "position", position, {rows});
    expect_shape("embedding", "position_table", position_table, {position_table.rows(), d});
  }
  return tape.run(embedding_operation, {ids, position, token_table, position_table},
                  Makes{.outputs = {{{rows, d}, token_table.dtype()}}}, spec);
}

}  // namespace mixtape
