// One layer of a transformer: attention, in some decoders attention to an encoder's output, and a feed-forward layer on
// a residual stream.
#pragma once

#include "core/model/kv_cache.h"
#include "core/model/lora.h"
#include "core/model/spec.h"
#include "core/model/tensor_parallel.h"
#include "core/ops/activation.h"
#include "core/ops/attention.h"
#include "core/tape.h"

namespace mixtape {

// What every layer of a forward pass shares: where the tokens are, and tables that follow from the model.
struct SequenceInputs {
  Tensor positions;             // int32 [rows]
  Tensor segments, n_segments;  // see core/ops/attention.h
  Tensor rope_table;            // absent unless the model uses it
  Tensor attention_bias;        // ALiBi's slopes or T5's table of buckets, where there is one
  int64_t max_length = 0;       // of a segment's queries
  KvCache* cache = nullptr;     // generation: keys and values of earlier tokens
  // Cross-attention: an encoder's output, the pairs of our rows and its rows, and the most of its rows in a pair.
  Tensor memory, cross_segments, n_cross_segments;
  int64_t max_memory_length = 0;
};

// A parameter's id, or absent.
struct ParameterId {
  int id = -1;
  Tensor on(Tape& tape) const { return id < 0 ? Tensor{} : tape.parameter(id); }
};

struct NormIds {
  ParameterId weight, bias;
};
struct LinearIds {
  ParameterId weight, bias;
  // Of an adapter, where the layer has one (lora.h).
  ParameterId lora_a, lora_b;
  float lora_scale = 0;
  int lora_dropout = 0;  // threshold
};

// The residual stream: its value is h + branch, and the addition waits for the norm that it is fused with.
struct Stream {
  Tensor h, branch;
};

// A stack of blocks among the model's: a decoder, an encoder, or one of the two of an encoder-decoder.
struct StackAxes {
  std::string prefix;  // of its parameters' names
  int64_t n_layers = 0;
  bool causal = true;
  bool cross_attention = false;  // each block attends to the output of the stack before
  int64_t token_types = 0;
  LoraSpec lora = {};
  TensorParallel parallel = TensorParallel();
};

class Block {
 public:
  // Adds the layer's parameters, named `<prefix>norm1.weight` and so on, to the layout.
  Block(const ModelSpec& spec, const StackAxes& axes, int64_t layer, const std::string& prefix,
        ParameterLayout& layout);

  // What an encoder's output is to this layer's cross-attention, [rows, 2 n_kv_heads head_dim].
  Tensor memory_of(Tape& tape, const Tensor& encoded) const;
  // The stream after the layer.
  Stream forward(Tape& tape, Stream stream, const SequenceInputs& inputs) const;

 private:
  Tensor attention_sublayer(Tape& tape, const Tensor& x, const SequenceInputs& inputs) const;
  Tensor cross_attention_sublayer(Tape& tape, const Tensor& x, const SequenceInputs& inputs) const;
  Tensor feed_forward(Tape& tape, const Tensor& x, int64_t rows) const;
  // A product that ends a sub-layer, on its way into the stream of so many rows.
  Tensor into_stream(Tape& tape, const LinearIds& layer, const Tensor& x, int64_t rows) const;

  const ModelSpec& spec_;
  TensorParallel parallel_;
  int64_t layer_;
  bool cross_;
  AttentionSpec attention_, cross_attention_;
  NormIds norm1_, norm_cross_, norm2_;
  LinearIds qkv_, out_, cross_q_, cross_kv_, cross_out_, up_, down_;
};

// Adds a norm's parameters to the layout.
NormIds add_norm(const ModelSpec& spec, const std::string& prefix, ParameterLayout& layout);
// Adds a linear layer's. `pieces`: the outputs of each of several layers that are computed as one. `cut`: how ranks
// share out the weight: with columns each makes a summand of the outputs, the first one that with the bias.
LinearIds add_linear(const std::string& name, int64_t out, int64_t in, bool bias, Init init, ParameterLayout& layout,
                     std::vector<int64_t> pieces = {}, Cut cut = Cut::none);
// A linear layer with its adapter, if it has one.
Tensor apply(Tape& tape, const LinearIds& layer, const Tensor& x, Unary activation = Unary::none);
// How a matrix of `inputs` columns starts (ModelSpec::init).
Init matrix_init(const ModelSpec& spec, int64_t inputs);
// What the activation does to one number; gated ones to their gate.
Unary unary_of(Activation activation);
// The norm of h + branch; the stream becomes the sum. `parallel`: the ranks that have other rows of the stream.
Tensor normalise(Tape& tape, const ModelSpec& spec, const NormIds& ids, Stream& stream,
                 const TensorParallel& parallel = TensorParallel());
// h + branch, as one tensor.
Tensor joined(Tape& tape, const Stream& stream);

}  // namespace mixtape
