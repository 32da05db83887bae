// The one Transformer: embeddings, a stack of blocks, a head.
//
// It owns the parameter layout and nothing that has device memory but its small tables (rotary angles, ALiBi slopes).
// Each axis of ModelSpec is handled in one function here or in block.cpp.
#pragma once

#include <vector>

#include "core/model/block.h"
#include "core/ops/loss.h"

namespace mixtape {

// A micro-batch on the device. Shapes are capacities known from the config: rows = B * T.
struct ModelInputs {
  Tensor tokens, positions, targets;  // int32 [rows]; targets may be absent
  Tensor segments, n_segments;        // int32 [capacity, 4], [1]
};

class Transformer {
 public:
  // `row_length`: the longest sequence of a batch. Throws ConfigError for axes that do not go together.
  Transformer(const ModelSpec& spec, int64_t row_length);
  Transformer(const Transformer&) = delete;
  Transformer& operator=(const Transformer&) = delete;

  const ModelSpec& spec() const { return spec_; }
  const ParameterLayout& layout() const { return layout_; }

  // Makes the tables that forward reads, for sequences of at most `positions` tokens.
  void make_tables(Backend& backend, int64_t positions);

  // How many rows of logits exist at once; 0: the back end chooses.
  void set_loss_chunk_rows(int64_t rows) { loss_chunk_rows_ = rows; }

  // The last hidden states, [rows, d_model], after the final norm.
  Tensor hidden(Tape& tape, const ModelInputs& inputs, KvCache* cache = nullptr) const;
  Loss loss(Tape& tape, const ModelInputs& inputs) const;
  // logit_scale * (hidden W^T + b), [rows, vocab_size]: for generation and parity checks, never in training.
  Tensor logits(Tape& tape, const Tensor& hidden) const;

  // Multiplications and additions of one token in forward and backward, as 6 * (matmul weights, the head included, no
  // lookups) + attention: 6 L T d_attn causal, 12 L T d_attn otherwise (T the length that a token attends over at
  // most).
  double flops_per_token(int64_t length) const;

 private:
  static void run_block(Tape& tape, const void* model, int64_t layer, std::span<const Tensor> inputs,
                        std::span<Tensor> outputs);
  Tensor embed(Tape& tape, const ModelInputs& inputs) const;
  SequenceInputs sequence(const ModelInputs& inputs, KvCache* cache) const;
  ParameterId head() const { return spec_.tied_embeddings ? token_table_ : lm_head_; }

  ModelSpec spec_;
  int64_t row_length_;
  int64_t loss_chunk_rows_ = 0;
  ParameterLayout layout_;
  ParameterId token_table_, position_table_, lm_head_, lm_head_bias_;
  NormIds embedding_norm_, final_norm_;
  std::vector<Block> blocks_;
  Tensor rope_table_, alibi_slopes_;
};

// Refuses axes that do not go together, or that this version cannot compute. Throws ConfigError naming the key.
void check_spec(const ModelSpec& spec);

}  // namespace mixtape
