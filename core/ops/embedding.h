// Lookup of vectors: of tokens with their positions and types, and of rows of hidden states.
#pragma once

#include "core/backend.h"
#include "core/tape.h"

namespace mixtape {

struct EmbeddingSpec {
  float scale = 1;              // of the token vector (T5 and the original Transformer use sqrt(d_model))
  int64_t position_offset = 0;  // row of position p is p + offset (2 in OPT)
  int64_t pad_id = -1;          // lookups of this token leave no gradient in its row; -1 means none
  // Where ranks share out the table of tokens: the token of its first row here, and how many tokens there are in all;
  // 0: all are here. Rows of y whose token is another rank's are zeros, so that the ranks' sum is the lookup; the
  // gradients of positions and types are of all rows.
  int64_t first_token = 0, vocabulary = 0;
};

// Which rows are looked up: int32 [rows] each.
struct EmbeddingIds {
  Tensor tokens;
  Tensor positions;  // read if there is a table of positions
  Tensor types;      // read if there is a table of types; absent: type 0 everywhere
};

// [V, d], [P, d], [S, d]; positions and types may be absent. All are of one type, but for a table of positions that is
// no parameter (sinusoidal_positions): that may be float32 whatever the others' type.
struct EmbeddingTables {
  Tensor tokens, positions, types;
};

// y[r, :] = scale * tokens[token[r], :] + positions[position[r] + offset, :] + types[type[r], :].
// y: [rows, d], of the token table's type. Rows with a negative token (padding at a batch's end) give zeros and no
// gradient. Source of the sum: BERT (arXiv 1810.04805).
Tensor embedding(Tape& tape, const EmbeddingIds& ids, const EmbeddingTables& tables, const EmbeddingSpec& spec);

// The table of "Attention is all you need" (arXiv 1706.03762), float32 [positions, d]:
// table[p, 2i] = sin(p / 10000^(2i/d)), table[p, 2i + 1] = cos(p / 10000^(2i/d)).
void sinusoidal_positions(float* table, int64_t positions, int64_t d);

// y[i, :] = x[index[i], :]: the rows that a head is wanted for, such as masked tokens or the first of each sequence.
// x: [rows, d]; index: int32 [n], negative where there is none (a capacity's tail): y[i] is then zero and gives no
// gradient. A row that is named more than once gets the sum. Returns [n, d].
Tensor gather_rows(Tape& tape, const Tensor& x, const Tensor& index);

// What a device provides.
struct Embed {
  Tensor y;
  EmbeddingIds ids;
  EmbeddingTables tables;
  EmbeddingSpec spec;
};
// Deterministic: a row's contributions are added in the order of the tokens. In overwrite mode rows that no token
// names become zero.
struct EmbedBackward {
  Grad dtokens, dpositions, dtypes;
  Tensor dy;
  EmbeddingIds ids;
  EmbeddingSpec spec;
};
struct GatherRows {
  Tensor y, x, index;
};
// As EmbedBackward: sums in the order of the index, zero where nothing is named.
struct GatherRowsBackward {
  Grad dx;
  Tensor dy, index;
};

class EmbeddingKernels {
 public:
  virtual ~EmbeddingKernels() = default;
  virtual void embedding(const Embed&) = 0;
  virtual void embedding_backward(const EmbedBackward&) = 0;
  virtual void gather_rows(const GatherRows&) = 0;
  virtual void gather_rows_backward(const GatherRowsBackward&) = 0;
};

}  // namespace mixtape
