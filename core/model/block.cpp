#include "core/model/block.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/model/quantisation.h"
#include "core/model/rotary.h"
#include "core/ops/activation.h"
#include "core/ops/cast.h"
#include "core/ops/dropout.h"
#include "core/ops/matmul.h"
#include "core/ops/norm.h"
#include "core/ops/position.h"

namespace mixtape {
namespace {

// A projection into the residual stream, of which the stack has `projections`.
Init residual_init(const ModelSpec& spec, int64_t inputs, int64_t projections) {
  Init init = matrix_init(spec, inputs);
  if (spec.init_residual_scaled) init.std = float(double(init.std) / std::sqrt(double(projections)));
  return init;
}

// Queries make up for the 1 / sqrt(head_dim) that an attention with another scale lacks.
Init query_init(const ModelSpec& spec) {
  Init init = matrix_init(spec, spec.d_model);
  if (spec.init == InitScheme::fan_in) {
    init.queries = spec.n_heads * spec.head_width() * spec.d_model;
    init.query_scale = float(1 / (spec.query_key_scale() * std::sqrt(double(spec.head_width()))));
  }
  return init;
}

void add_adapter(const LoraSpec& lora, const std::string& name, int64_t out, int64_t in, LinearIds& ids,
                 ParameterLayout& layout) {
  if (std::find(lora.layers.begin(), lora.layers.end(), name) == lora.layers.end()) return;
  ids.lora_a = {layout.add(name + ".lora_a", {lora.rank, in}, {Init::normal, float(1 / std::sqrt(3.0 * double(in)))})};
  ids.lora_b = {layout.add(name + ".lora_b", {out, lora.rank}, {Init::zeros})};
  ids.lora_scale = float(lora.scale());
  ids.lora_dropout = dropout_threshold(lora.dropout);
}

}  // namespace

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

Init matrix_init(const ModelSpec& spec, int64_t inputs) {
  const double fan = spec.init == InitScheme::fan_in ? std::sqrt(double(inputs)) : 1;
  return {Init::normal, float(spec.init_std / fan)};
}

LinearIds add_linear(const std::string& name, int64_t out, int64_t in, bool bias, Init init, ParameterLayout& layout,
                     std::vector<int64_t> pieces, Cut cut) {
  LinearIds ids;
  ids.weight = {layout.add(name + ".weight", {out, in}, init, pieces, cut)};
  if (!bias) return ids;
  const int id = layout.add(name + ".bias", {out}, {Init::zeros}, pieces, cut == Cut::columns ? Cut::first : cut);
  if (layout[id].count() > 0) ids.bias = {id};
  return ids;
}

Tensor apply(Tape& tape, const LinearIds& layer, const Tensor& x, Unary kind) {
  const Tensor bias = layer.bias.on(tape);
  const Quantisation* const quantisation = tape.quantisation();
  const bool rounds = quantisation && quantisation->has(layer.weight.id) && !tape.decoding();
  const Tensor code_scale = tape.parameters()->code_scale(layer.weight.id);
  const auto product = [&](Unary then) {
    if (code_scale) return linear_int8(tape, x, layer.weight.on(tape), code_scale, bias, then);
    if (!rounds) return linear(tape, x, layer.weight.on(tape), bias, then);
    const Tensor sum = quantisation->linear(tape, x, layer.weight.id, bias);
    return then == Unary::none ? sum : activation(tape, sum, then);
  };
  if (layer.lora_a.id < 0) return product(kind);
  const Tensor low = linear(tape, dropout(tape, x, layer.lora_dropout), layer.lora_a.on(tape), {});
  const Tensor change = linear(tape, low, layer.lora_b.on(tape), {});
  const Tensor sum = add(tape, product(Unary::none), change, layer.lora_scale);
  return kind == Unary::none ? sum : activation(tape, sum, kind);
}

NormIds add_norm(const ModelSpec& spec, const std::string& prefix, ParameterLayout& layout) {
  NormIds ids;
  ids.weight = {layout.add(prefix + ".weight", {spec.d_model}, {Init::ones})};
  if (spec.norm == NormKind::layernorm && spec.bias)
    ids.bias = {layout.add(prefix + ".bias", {spec.d_model}, {Init::zeros})};
  return ids;
}

Tensor normalise(Tape& tape, const ModelSpec& spec, const NormIds& ids, Stream& stream,
                 const TensorParallel& parallel) {
  const Tensor weight = parallel.add_up(tape, ids.weight.on(tape)), bias = parallel.add_up(tape, ids.bias.on(tape));
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

Block::Block(const ModelSpec& spec, const StackAxes& axes, int64_t layer, const std::string& prefix,
             ParameterLayout& layout)
    : spec_(spec), parallel_(axes.parallel), layer_(layer), cross_(axes.cross_attention) {
  const int64_t d = spec.d_model, heads = spec.n_heads, kv = spec.kv_heads(), width = spec.head_width();
  const int64_t projections = axes.n_layers * (cross_ ? 3 : 2);
  // `pieces`: the outputs of each of the layers that are computed as one.
  const auto add = [&](const char* name, const std::vector<int64_t>& pieces, int64_t in, bool bias, Init init,
                       Cut cut) {
    const int64_t out = std::accumulate(pieces.begin(), pieces.end(), int64_t(0));
    LinearIds ids = add_linear(prefix + name, out, in, bias, init, layout, pieces, cut);
    add_adapter(axes.lora, prefix + name, out, in, ids, layout);
    return ids;
  };
  // Into a sub-layer ranks have their outputs each, out of it their inputs.
  constexpr Cut into = Cut::rows, out = Cut::columns;
  norm1_ = add_norm(spec, prefix + "norm1", layout);
  qkv_ = add("attention.qkv", {heads * width, kv * width, kv * width}, d, spec.has_qkv_bias(), query_init(spec), into);
  out_ = add("attention.out", {d}, heads * width, spec.has_out_bias(), residual_init(spec, heads * width, projections),
             out);
  if (cross_) {
    norm_cross_ = add_norm(spec, prefix + "norm_cross", layout);
    cross_q_ = add("cross_attention.q", {heads * width}, d, spec.has_qkv_bias(), query_init(spec), into);
    cross_kv_ = add("cross_attention.kv", {kv * width, kv * width}, d, spec.has_qkv_bias(), matrix_init(spec, d), into);
    cross_out_ = add("cross_attention.out", {d}, heads * width, spec.has_out_bias(),
                     residual_init(spec, heads * width, projections), out);
  }
  norm2_ = add_norm(spec, prefix + "norm2", layout);
  const std::vector<int64_t> ups(is_gated(spec.activation) ? 2 : 1, spec.ff_width());
  up_ = add("mlp.up", ups, d, spec.bias, matrix_init(spec, d), into);
  down_ = add("mlp.down", {d}, spec.ff_width(), spec.bias, residual_init(spec, spec.ff_width(), projections), out);

  const Run here = parallel_.part(heads);
  attention_ = {.n_heads = here.count,
                .n_kv_heads = parallel_.part(kv).count,
                .head_dim = width,
                .scale = float(spec.query_key_scale()),
                .causal = axes.causal,
                .window = spec.layer_window(layer),
                .dropout_threshold = dropout_threshold(spec.attention_dropout),
                .first_head = here.begin,
                .all_heads = heads};
  // What decides by places within one sequence has no meaning between two.
  cross_attention_ = attention_;
  cross_attention_.causal = false;
  cross_attention_.window = 0;
  if (spec.position == Position::relative_bias) {
    attention_.relative_buckets = spec.relative_buckets;
    attention_.relative_distance = spec.relative_distance;
  }
}

Stream Block::forward(Tape& tape, Stream stream, const SequenceInputs& inputs) const {
  // Post-norm: the stream itself is normalised after each sum, and what follows reads that. Pre-norm: the stream is a
  // sum throughout, and each sub-layer reads its norm.
  const bool post = spec_.norm_placement == NormPlacement::post;
  const auto sublayer = [&](const NormIds& norm, auto&& branch) {
    if (post) {
      stream.branch = branch(stream.h);
      stream = {normalise(tape, spec_, norm, stream, parallel_), {}};
    } else {
      const Tensor x = normalise(tape, spec_, norm, stream, parallel_);
      stream.branch = branch(x);
    }
  };
  sublayer(norm1_, [&](const Tensor& x) { return attention_sublayer(tape, x, inputs); });
  if (cross_) sublayer(norm_cross_, [&](const Tensor& x) { return cross_attention_sublayer(tape, x, inputs); });
  sublayer(norm2_, [&](const Tensor& x) { return feed_forward(tape, x, inputs.positions.count()); });
  return stream;
}

Tensor Block::into_stream(Tape& tape, const LinearIds& layer, const Tensor& x, int64_t rows) const {
  const Tensor y = parallel_.sum(tape, apply(tape, layer, x));
  return dropout(tape, y, dropout_threshold(spec_.dropout), parallel_.first_row(rows) * spec_.d_model);
}

Tensor Block::attention_sublayer(Tape& tape, const Tensor& x, const SequenceInputs& inputs) const {
  const int64_t rows = inputs.positions.count();
  Tensor qkv = apply(tape, qkv_, parallel_.spread(tape, x, rows));
  if (inputs.rope_table)
    qkv = rope(tape, std::move(qkv), inputs.positions, inputs.rope_table,
               {.heads = attention_.n_heads + attention_.n_kv_heads,
                .head_dim = attention_.head_dim,
                .rotary_dim = rotary_dim(spec_)});
  AttentionSpec spec = attention_;
  spec.max_q_len = inputs.max_length;
  const Tensor mixed = inputs.cache
                           ? inputs.cache->attend(tape, layer_, qkv, inputs.attention_bias, spec)
                           : attention(tape, qkv, inputs.segments, inputs.n_segments, inputs.attention_bias, spec);
  qkv = {};
  return into_stream(tape, out_, mixed, rows);
}

Tensor Block::memory_of(Tape& tape, const Tensor& encoded) const { return apply(tape, cross_kv_, encoded); }

Tensor Block::cross_attention_sublayer(Tape& tape, const Tensor& x, const SequenceInputs& inputs) const {
  AttentionSpec spec = cross_attention_;
  spec.max_q_len = inputs.max_length;
  spec.max_k_len = inputs.max_memory_length;
  const int64_t rows = inputs.positions.count();
  Tensor q = apply(tape, cross_q_, parallel_.spread(tape, x, rows));
  const Tensor mixed = inputs.cache ? inputs.cache->attend_memory(tape, layer_, q, spec)
                                    : cross_attention(tape, q, memory_of(tape, inputs.memory), inputs.cross_segments,
                                                      inputs.n_cross_segments, spec);
  q = {};
  return into_stream(tape, cross_out_, mixed, rows);
}

Tensor Block::feed_forward(Tape& tape, const Tensor& x, int64_t rows) const {
  const Unary kind = unary_of(spec_.activation);
  const bool gated = is_gated(spec_.activation);
  Tensor inner = apply(tape, up_, parallel_.spread(tape, x, rows), gated ? Unary::none : kind);
  if (gated) inner = gated_activation(tape, inner, kind);
  return into_stream(tape, down_, inner, rows);
}

}  // namespace mixtape
