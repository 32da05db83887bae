// One layer of a transformer: an attention sub-layer and a feed-forward sub-layer on a residual stream.
#pragma once

#include "core/model/kv_cache.h"
#include "core/model/spec.h"
#include "core/ops/attention.h"
#include "core/tape.h"

namespace mixtape {

// What every layer of a forward pass shares: where the tokens are, and tables that follow from the model.
struct SequenceInputs {
  Tensor positions;                 // int32 [rows]
  Tensor segments, n_segments;      // see core/ops/attention.h
  Tensor rope_table, alibi_slopes;  // absent unless the model uses them
  int64_t max_length = 0;           // of a segment's queries
  KvCache* cache = nullptr;         // generation: keys and values of earlier tokens
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
};

// The residual stream: its value is h + branch, and the addition waits for the norm that it is fused with.
struct Stream {
  Tensor h, branch;
};

class Block {
 public:
  // Adds the layer's parameters, named `<prefix>norm1.weight` and so on, to the layout.
  Block(const ModelSpec& spec, int64_t layer, const std::string& prefix, ParameterLayout& layout);

  // The stream after the layer.
  Stream forward(Tape& tape, Stream stream, const SequenceInputs& inputs) const;

 private:
  Tensor attention_sublayer(Tape& tape, const Tensor& x, const SequenceInputs& inputs) const;
  Tensor feed_forward(Tape& tape, const Tensor& x) const;

  const ModelSpec& spec_;
  int64_t layer_;
  AttentionSpec attention_;
  NormIds norm1_, norm2_;
  LinearIds qkv_, out_, up_, down_;
};

// Adds a norm's parameters to the layout.
NormIds add_norm(const ModelSpec& spec, const std::string& prefix, ParameterLayout& layout);
// The norm of h + branch; the stream becomes the sum.
Tensor normalise(Tape& tape, const ModelSpec& spec, const NormIds& ids, Stream& stream);
// h + branch, as one tensor.
Tensor joined(Tape& tape, const Stream& stream);

}  // namespace mixtape
