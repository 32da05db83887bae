#include "core/model/transformer.h"

#include "core/model/rotary.h"
#include "core/ops/cast.h"
#include "core/ops/dropout.h"
#include "core/ops/embedding.h"
#include "core/ops/matmul.h"

namespace mixtape {

void check_spec(const ModelSpec& spec) {
  if (spec.family != Family::decoder)
    throw ConfigError("model.family: this version trains decoders; encoder and encoder_decoder are not available");
  if (spec.head_width() < 1 || (spec.head_dim == 0 && spec.d_model % spec.n_heads))
    throw ConfigError("model.n_heads: {} does not divide model.d_model, {}; set model.head_dim", spec.n_heads,
                      spec.d_model);
  if (spec.n_heads % spec.kv_heads())
    throw ConfigError("model.n_kv_heads: {} does not divide model.n_heads, {}", spec.kv_heads(), spec.n_heads);
  if (spec.head_width() > 256) throw ConfigError("model.head_dim: {}, expected at most 256", spec.head_width());
  if (spec.position == Position::sinusoidal || spec.position == Position::relative_bias)
    throw ConfigError(
        "model.position: sinusoidal and relative_bias belong to encoder-decoders, which are not available");
  if (spec.token_types || spec.mlm_head || spec.qk_norm)
    throw ConfigError("model: token_types, mlm_head and qk_norm are not available in this version");
}

Transformer::Transformer(const ModelSpec& spec, int64_t row_length) : spec_(spec), row_length_(row_length) {
  check_spec(spec_);
  const Init table{Init::normal, float(spec_.init_std)};
  token_table_ = {layout_.add("embedding.token", {spec_.vocab_size, spec_.d_model}, table)};
  if (spec_.position == Position::learned)
    position_table_ = {
        layout_.add("embedding.position", {spec_.max_positions + spec_.position_offset, spec_.d_model}, table)};
  if (spec_.embedding_norm) embedding_norm_ = add_norm(spec_, "embedding.norm", layout_);
  blocks_.reserve(spec_.n_layers);
  for (int64_t layer = 0; layer < spec_.n_layers; ++layer)
    blocks_.emplace_back(spec_, layer, fmt::format("layers.{}.", layer), layout_);
  if (spec_.final_norm) final_norm_ = add_norm(spec_, "final_norm", layout_);
  if (!spec_.tied_embeddings) lm_head_ = {layout_.add("lm_head.weight", {spec_.vocab_size, spec_.d_model}, table)};
  if (spec_.lm_head_bias) lm_head_bias_ = {layout_.add("lm_head.bias", {spec_.vocab_size}, {Init::zeros})};
  layout_.finish();
}

void Transformer::make_tables(Backend& backend, int64_t positions) {
  if (spec_.position == Position::rope) {
    rope_table_ = backend.make({positions, rotary_dim(spec_)}, DType::f32, Category::batch);
    if (!backend.planning())
      backend.copy_from_host(rope_table_, rotary_table(spec_, rotary_dim(spec_), positions).data());
  }
  if (spec_.position == Position::alibi) {
    std::vector<float> slopes(spec_.n_heads);
    mixtape::alibi_slopes(slopes.data(), spec_.n_heads);
    alibi_slopes_ = backend.make({spec_.n_heads}, DType::f32, Category::batch);
    backend.copy_from_host(alibi_slopes_, slopes.data());
  }
}

SequenceInputs Transformer::sequence(const ModelInputs& inputs, KvCache* cache) const {
  return {.positions = inputs.positions,
          .segments = inputs.segments,
          .n_segments = inputs.n_segments,
          .rope_table = rope_table_,
          .alibi_slopes = alibi_slopes_,
          .max_length = std::min(row_length_, inputs.tokens.count()),
          .cache = cache};
}

Tensor Transformer::embed(Tape& tape, const ModelInputs& inputs) const {
  Tensor x = embedding(
      tape, {inputs.tokens, inputs.positions, {}}, {token_table_.on(tape), position_table_.on(tape), {}},
      {.scale = float(spec_.embedding_scale), .position_offset = spec_.position_offset, .pad_id = spec_.pad_id});
  if (spec_.embedding_norm) {
    Stream stream{x, {}};
    x = normalise(tape, spec_, embedding_norm_, stream);
  }
  return dropout(tape, x, dropout_threshold(spec_.dropout));
}

// What recomputation runs twice: the stream in, the stream out, each as one tensor.
void Transformer::run_block(Tape& tape, const void* model, int64_t layer, std::span<const Tensor> inputs,
                            std::span<Tensor> outputs) {
  const auto& self = *static_cast<const Transformer*>(model);
  const SequenceInputs sequence{.positions = inputs[1],
                                .segments = inputs[2],
                                .n_segments = inputs[3],
                                .rope_table = self.rope_table_,
                                .alibi_slopes = self.alibi_slopes_,
                                .max_length = std::min(self.row_length_, inputs[1].count())};
  outputs[0] = joined(tape, self.blocks_[layer].forward(tape, {inputs[0], {}}, sequence));
}

Tensor Transformer::hidden(Tape& tape, const ModelInputs& inputs, KvCache* cache) const {
  Stream stream{embed(tape, inputs), {}};
  const SequenceInputs shared = sequence(inputs, cache);
  for (int64_t layer = 0; layer < spec_.n_layers; ++layer) {
    if (tape.policy() == RecomputePolicy::full && tape.training()) {
      const std::array<Tensor, 4> in{joined(tape, stream), inputs.positions, inputs.segments, inputs.n_segments};
      std::array<Tensor, 1> out;
      stream = {};
      tape.recompute(run_block, this, layer, in, out);
      stream.h = out[0];
    } else {
      stream = blocks_[layer].forward(tape, std::move(stream), shared);
    }
  }
  return spec_.final_norm ? normalise(tape, spec_, final_norm_, stream) : joined(tape, stream);
}

Loss Transformer::loss(Tape& tape, const ModelInputs& inputs) const {
  return cross_entropy(tape, hidden(tape, inputs), head().on(tape), lm_head_bias_.on(tape), inputs.targets,
                       {.logit_scale = float(spec_.logit_scale), .chunk_rows = loss_chunk_rows_});
}

Tensor Transformer::logits(Tape& tape, const Tensor& hidden) const {
  Tensor z = linear(tape, hidden, head().on(tape), lm_head_bias_.on(tape));
  if (spec_.logit_scale == 1) return z;
  const Tensor scaled = tape.backend().make(z.shape(), z.dtype());
  tape.backend().cast().convert({.y = {scaled, Write::overwrite}, .x = z, .scale = float(spec_.logit_scale)});
  return scaled;
}

double Transformer::flops_per_token(int64_t length) const {
  double weights = double(spec_.vocab_size) * double(spec_.d_model);  // the head, tied or not
  double attended = 0;
  for (const ParameterEntry& entry : layout_.entries())
    if (entry.name.starts_with("layers.") && entry.shape.rank() == 2) weights += double(entry.count());
  for (int64_t layer = 0; layer < spec_.n_layers; ++layer) {
    const int64_t window = spec_.layer_window(layer);
    attended += double(window > 0 ? std::min(window, length) : length);
  }
  const double per_key = spec_.family == Family::encoder ? 12.0 : 6.0;
  return 6 * weights + per_key * attended * double(spec_.n_heads * spec_.head_width());
}

}  // namespace mixtape
