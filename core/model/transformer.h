// The one Transformer: a table of tokens, one stack of blocks or two (stack.h), a head.
//
// It owns the parameter layout and nothing that has device memory but the stacks' small tables (rotary angles, ALiBi
// slopes, sinusoids). Each axis of ModelSpec is handled in one function here, in stack.cpp or in block.cpp.
#pragma once

#include "core/model/stack.h"
#include "core/ops/loss.h"

namespace mixtape {

// A micro-batch on the device.
struct ModelInputs {
  StackInputs main;                         // of the only stack, or of the encoder
  StackInputs decoder;                      // after an encoder
  Tensor cross_segments, n_cross_segments;  // queries: the decoder's rows; keys: the encoder's
  // int32, one for each row of the last stack; absent where no loss is wanted. With `target_rows`, the few rows that
  // have a target (negative: none, a capacity's tail), one for each of those: the head then runs on them alone.
  Tensor targets, target_rows;
};

// How long the sequences of a batch are: what a model's arithmetic depends on.
struct SequenceLengths {
  int64_t main = 0;     // of the only stack, or of the encoder
  int64_t decoder = 0;  // after an encoder
  int64_t targets = 0;  // of a sequence; 0: all that the last stack has
};

// Numbers that ranks exchange: those that all get from all, those of which each gets the sum of its part, and those of
// which all get the sum.
struct RankTraffic {
  double gathered = 0, scattered = 0, summed = 0;
  // What a rank sends, and receives; a sum for all is a sum of parts that all then get.
  double bytes(int ranks, DType type) const {
    return double(ranks - 1) / ranks * (double(size_of(type)) * gathered + 4 * scattered + 8 * summed);
  }
};

class Transformer {
 public:
  // `row_length`: the longest sequence of a batch; `decoder_length`: that of a decoder after an encoder; `parallel`:
  // the ranks that share out its layers, of which this is one. Throws ConfigError for axes that do not go together.
  explicit Transformer(const ModelSpec& spec, int64_t row_length, int64_t decoder_length = 0, const LoraSpec& lora = {},
                       TensorParallel parallel = TensorParallel());
  Transformer(const Transformer&) = delete;
  Transformer& operator=(const Transformer&) = delete;

  const ModelSpec& spec() const { return spec_; }
  const TensorParallel& parallel() const { return parallel_; }
  const ParameterLayout& layout() const { return layout_; }
  // Before there are buffers; see ParameterLayout.
  void freeze(const std::vector<std::string>& parameters) { layout_.freeze(parameters); }
  void code_layer_weights() { layout_.code_layer_weights(); }

  // Makes the tables that forward reads.
  void make_tables(Backend& backend);

  // How many rows of logits exist at once; 0: the back end chooses.
  void set_loss_chunk_rows(int64_t rows) { loss_chunk_rows_ = rows; }

  // The last hidden states, [rows, d_model], after the final norm.
  Tensor hidden(Tape& tape, const ModelInputs& inputs) const;
  // Generation: the same of new tokens of the last stack, after those in the cache.
  Tensor hidden_of_new(Tape& tape, const StackInputs& inputs, KvCache& cache) const;
  // Generation after an encoder: encodes one sequence as the memory of a slot.
  void read(Tape& tape, const StackInputs& sequence, KvCache& cache, int slot) const;
  // Label smoothing: the target distribution is (1 - s) one-hot + s / V. `predict`: also what is likeliest.
  Loss loss(Tape& tape, const ModelInputs& inputs, double label_smoothing = 0, bool predict = false) const;
  // logit_factor * (hidden W^T + b), [rows, n_outputs]: for generation and parity checks, never in training.
  Tensor logits(Tape& tape, const Tensor& hidden) const;

  // Multiplications and additions of a sequence in forward and backward. Of matrix products: 6 for each weight and each
  // row that it is applied to; lookups are none, and the head counts for targets alone.
  double product_flops(const SequenceLengths& lengths) const;
  // 12 T d_attn a layer and query over T keys, half of that where attention is causal.
  double attention_flops(const SequenceLengths& lengths) const;
  // Both, divided by the sequence's tokens; of two stacks by the encoder's, which is what papers and Batch count.
  double flops_per_token(const SequenceLengths& lengths) const {
    return (product_flops(lengths) + attention_flops(lengths)) / double(lengths.main);
  }

  // Of the ranks that share out its layers, in a micro-batch of so many sequences. What they tell each other of losses
  // is little beside that.
  RankTraffic rank_traffic(const SequenceLengths& lengths, double sequences, RecomputePolicy policy) const;

 private:
  void add_head();
  bool shares_vocabulary() const { return parallel_.size() > 1 && spec_.head == Head::vocabulary; }
  // What stands between the last hidden states and the output layer.
  Tensor before_head(Tape& tape, const Tensor& hidden) const;

  ModelSpec spec_;
  TensorParallel parallel_;
  int64_t loss_chunk_rows_ = 0;
  ParameterLayout layout_;
  ParameterId token_table_;
  LinearIds head_dense_;  // of masked LM, and of labels of sequences
  NormIds mlm_norm_;
  LinearIds output_;  // its weight is the table where embeddings are tied
  std::vector<Stack> stacks_;
};

// Refuses axes that do not go together, or that this version cannot compute. Throws ConfigError naming the key.
void check_spec(const ModelSpec& spec);

}  // namespace mixtape
