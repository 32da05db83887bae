// Lookup of token and position vectors.
#pragma once

#include "core/backend.h"
#include "core/tape.h"

namespace mixtape {

struct EmbeddingSpec {
  float scale = 1;              // of the token vector (T5 and the original Transformer use sqrt(d_model))
  int64_t position_offset = 0;  // row of position p is p + offset (2 in OPT)
  int64_t pad_id = -1;          // lookups of this token leave no gradient in its row; -1 means none
};

// y[r, :] = scale * tokens[ids[r], :] + positions[position[r] + offset, :].
// ids, position: int32 [rows]; token_table: [V, d]; position_table: [P, d] or absent; y: [rows, d]. Rows with a
// negative id (padding at a batch's end) give zeros and no gradient.
Tensor embedding(Tape& tape, const Tensor& ids, const Tensor& position, const Tensor& token_table,
                 const Tensor& position_table, const EmbeddingSpec& spec);

// What a device provides.
struct Embed {
  Tensor y, ids, position, token_table, position_table;
  EmbeddingSpec spec;
};
// Deterministic: a row's contributions are added in the order of the tokens. In overwrite mode rows that no token
// names become zero.
struct EmbedBackward {
  Grad dtokens, dpositions;
  Tensor dy, ids, position;
  EmbeddingSpec spec;
};

class EmbeddingKernels {
 public:
  virtual ~EmbeddingKernels() = default;
  virtual void embedding(const Embed&) = 0;
  virtual void embedding_backward(const EmbedBackward&) = 0;
};

}  // namespace mixtape
