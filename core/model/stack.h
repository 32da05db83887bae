// A stack of blocks between its embedding and its last norm: a decoder, an encoder, or one of the two of an
// encoder-decoder.
//
// It owns what belongs to the stack alone: positions, token types, norms, blocks. The table of tokens is the model's,
// since an encoder and its decoder share it. What the stack is (causal, with cross-attention, how deep) is StackAxes;
// nothing in here asks for the model's family.
#pragma once

#include <vector>

#include "core/model/block.h"

namespace mixtape {

// The rows of a stack on the device. Shapes are capacities known from the config: rows = B * T.
struct StackInputs {
  Tensor tokens, positions;     // int32 [rows]
  Tensor types;                 // int32 [rows]; absent: type 0 everywhere
  Tensor segments, n_segments;  // int32 [capacity, 4], [1]; see core/ops/attention.h
};

// What a decoder reads of the encoder.
struct Memory {
  Tensor hidden;                // [rows of the encoder, d_model]
  Tensor segments, n_segments;  // pairs of ranges of the decoder's rows and of these
};

// The longest sequences: the stack's own, and the encoder's that it reads.
struct StackLengths {
  int64_t rows = 0, memory = 0;
};

class Stack {
 public:
  // Parameters are added to the layout under axes.prefix.
  Stack(const ModelSpec& spec, StackAxes axes, StackLengths lengths, ParameterLayout& layout);

  // Makes the tables that forward reads.
  void make_tables(Backend& backend);

  // The last hidden states, [rows, d_model], after the final norm; in training of the rows that this rank has of the
  // stream (tensor_parallel.h). `memory` where the stack has cross-attention.
  Tensor forward(Tape& tape, const Tensor& token_table, const StackInputs& inputs, const Memory& memory,
                 KvCache* cache) const;
  // Generation: what the layers will read of an encoder's output goes into the cache.
  void remember(Tape& tape, const Tensor& encoded, KvCache& cache, int slot) const;

 private:
  static void run_block(Tape& tape, const void* stack, int64_t layer, std::span<const Tensor> inputs,
                        std::span<Tensor> outputs);
  Tensor embed(Tape& tape, const Tensor& token_table, const StackInputs& inputs) const;
  SequenceInputs sequence(Tape& tape, const StackInputs& inputs, const Memory& memory, KvCache* cache) const;

  const ModelSpec& spec_;
  StackAxes axes_;
  StackLengths lengths_;
  ParameterId position_table_, type_table_, relative_bias_;
  NormIds embedding_norm_, final_norm_;
  std::vector<Block> blocks_;
  Tensor sinusoids_, rope_table_, alibi_slopes_;
};

// The stacks of a model, in the order of forward: the one place where its family decides.
std::vector<StackAxes> stacks_of(const ModelSpec& spec);
// Can it go on with a text? Not if its last stack sees what comes after a token.
inline bool can_generate(const ModelSpec& spec) { return stacks_of(spec).back().causal; }

}  // namespace mixtape
