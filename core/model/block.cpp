#include "core/model/block.h"

#include <cmath>

#include "core/model/rotary.h"
#include "core/ops/activation.h"
#include "core/ops/cast.h"
#include "core/ops/dropout.h"
#include "core/ops/matmul.h"
#include "core/ops/norm.h"
#include "core/ops/position.h"

namespace mixtape {
namespace {

Unary unary_of(Activation activation) {
  switch (activation) {
    case Activation::relu:
      return Unary::relu;
    case Activation::gelu:
    case Activation::geglu:
      return Unary::gelu;
    case Activation::gelu_tanh:
    case Activation::geglu_tanh:
      return Unary::gelu_tanh;
    case Activation::silu:
    case Activation::swiglu:
      return Unary::silu;
  }
  return Unary::none;
}

Init weight_init(const ModelSpec& spec, bool into_residual) {
  const double depth = std::sqrt(2.0 * double(spec.n_layers));
  return {Init::normal, float(into_residual && spec.init_residual_scaled ? spec.init_std / depth : spec.init_std)};
}

LinearIds add_linear(const std::string& name, int64_t out, int64_t in, bool bias, Init init, ParameterLayout& layout) {
  LinearIds ids;
  ids.weight = {layout.add(name + ".weight", {out, in}, init)};
  if (bias) ids.bias = {layout.add(name + ".bias", {out}, {Init::zeros})};
  return ids;
}

}  // namespace

NormIds add_norm(const ModelSpec& spec, const std::string& prefix, ParameterLayout& layout) {
  NormIds ids;
  ids.weight = {layout.add(prefix + ".weight", {spec.d_model}, {Init::ones})};
  if (spec.norm == NormKind::layernorm && spec.bias)
    ids.bias = {layout.add(prefix + ".bias", {spec.d_model}, {Init::zeros})};
  return ids;
}

Tensor normalise(Tape& tape, const ModelSpec& spec, const NormIds& ids, Stream& stream) {
  const Tensor weight = ids.weight.on(tape), bias = ids.bias.on(tape);
  const float eps = float(spec.norm_eps);
  if (!stream.branch)
    return spec.norm == NormKind::layernorm ? layer_norm(tape, stream.h, weight, bias, eps)
                                            : rms_norm(tape, stream.h, weight, eps);
  Residual r = spec.norm == NormKind::layernorm ? residual_layer_norm(tape, stream.h, stream.branch, weight, bias, eps)
                                                : residual_rms_norm(tape, stream.h, stream.branch, weight, eps);
  stream = {r.h, {}};
  return r.y;
}

Tensor joined(Tape& tape, const Stream& stream) {
  return stream.branch ? add(tape, stream.h, stream.branch) : stream.h;
}

Block::Block(const ModelSpec& spec, int64_t layer, const std::string& prefix, ParameterLayout& layout)
    : spec_(spec), layer_(layer) {
  const int64_t d = spec.d_model, heads = spec.n_heads, kv = spec.kv_heads(), width = spec.head_width();
  norm1_ = add_norm(spec, prefix + "norm1", layout);
  qkv_ = add_linear(prefix + "attention.qkv", (heads + 2 * kv) * width, d, spec.has_qkv_bias(),
                    weight_init(spec, false), layout);
  out_ = add_linear(prefix + "attention.out", d, heads * width, spec.has_out_bias(), weight_init(spec, true), layout);
  norm2_ = add_norm(spec, prefix + "norm2", layout);
  const int64_t up = is_gated(spec.activation) ? 2 * spec.ff_width() : spec.ff_width();
  up_ = add_linear(prefix + "mlp.up", up, d, spec.bias, weight_init(spec, false), layout);
  down_ = add_linear(prefix + "mlp.down", d, spec.ff_width(), spec.bias, weight_init(spec, true), layout);

  attention_ = {.n_heads = heads,
                .n_kv_heads = kv,
                .head_dim = width,
                .scale = float(spec.attention_scale > 0 ? spec.attention_scale : 1 / std::sqrt(double(width))),
                .causal = spec.family != Family::encoder,
                .window = spec.layer_window(layer),
                .dropout_threshold = dropout_threshold(spec.attention_dropout)};
}

Stream Block::forward(Tape& tape, Stream stream, const SequenceInputs& inputs) const {
  if (spec_.norm_placement == NormPlacement::pre) {
    Tensor x = normalise(tape, spec_, norm1_, stream);
    stream.branch = attention_sublayer(tape, x, inputs);
    x = normalise(tape, spec_, norm2_, stream);
    stream.branch = feed_forward(tape, x);
    return stream;
  }
  // Post-norm: the stream itself is normalised after each sum.
  stream.branch = attention_sublayer(tape, stream.h, inputs);
  stream = {normalise(tape, spec_, norm1_, stream), {}};
  stream.branch = feed_forward(tape, stream.h);
  return {normalise(tape, spec_, norm2_, stream), {}};
}

Tensor Block::attention_sublayer(Tape& tape, const Tensor& x, const SequenceInputs& inputs) const {
  Tensor qkv = linear(tape, x, qkv_.weight.on(tape), qkv_.bias.on(tape));
  if (inputs.rope_table)
    qkv = rope(tape, std::move(qkv), inputs.positions, inputs.rope_table,
               {.heads = attention_.n_heads + attention_.n_kv_heads,
                .head_dim = attention_.head_dim,
                .rotary_dim = rotary_dim(spec_)});
  AttentionSpec spec = attention_;
  spec.max_q_len = inputs.max_length;
  const Tensor mixed = inputs.cache
                           ? inputs.cache->attend(tape, layer_, qkv, inputs.alibi_slopes, spec)
                           : attention(tape, qkv, inputs.segments, inputs.n_segments, inputs.alibi_slopes, spec);
  qkv = {};
  return dropout(tape, linear(tape, mixed, out_.weight.on(tape), out_.bias.on(tape)), dropout_threshold(spec_.dropout));
}

Tensor Block::feed_forward(Tape& tape, const Tensor& x) const {
  const Unary kind = unary_of(spec_.activation);
  const bool gated = is_gated(spec_.activation);
  Tensor inner = linear(tape, x, up_.weight.on(tape), up_.bias.on(tape), gated ? Unary::none : kind);
  if (gated) inner = gated_activation(tape, inner, kind);
  return dropout(tape, linear(tape, inner, down_.weight.on(tape), down_.bias.on(tape)),
                 dropout_threshold(spec_.dropout));
}

}  // namespace mixtape
