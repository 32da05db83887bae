#include "core/model/transformer.h"

#include "core/ops/activation.h"
#include "core/ops/cast.h"
#include "core/ops/dropout.h"
#include "core/ops/embedding.h"
#include "core/ops/matmul.h"

namespace mixtape {

void check_spec(const ModelSpec& spec) {
  if (spec.head_width() < 1 || (spec.head_dim == 0 && spec.d_model % spec.n_heads))
    throw ConfigError("model.n_heads: {} does not divide model.d_model, {}; set model.head_dim", spec.n_heads,
                      spec.d_model);
  if (spec.n_heads % spec.kv_heads())
    throw ConfigError("model.n_kv_heads: {} does not divide model.n_heads, {}", spec.kv_heads(), spec.n_heads);
  if (spec.head_width() > 256) throw ConfigError("model.head_dim: {}, expected at most 256", spec.head_width());
  for (const StackAxes& stack : stacks_of(spec))
    if (spec.position == Position::alibi && !stack.causal)
      throw ConfigError("model.position: alibi is for decoders: its slopes would favour what comes after a token");
  for (const StackAxes& stack : stacks_of(spec)) {
    const int64_t exact = spec.relative_buckets / (stack.causal ? 2 : 4);  // distances with a bucket each
    if (spec.position == Position::relative_bias && (exact < 1 || spec.relative_distance <= exact))
      throw ConfigError("model.relative_distance: {} with {} relative_buckets, expected more than {}",
                        spec.relative_distance, spec.relative_buckets, std::max<int64_t>(exact, 1));
  }
  if (spec.head != Head::vocabulary && (spec.family != Family::encoder || spec.n_labels < 1))
    throw ConfigError("model.head: {} is for encoders, and has at least one label", spec.head);
  if (spec.qk_norm) throw ConfigError("model: qk_norm is not available in this version");
}

Transformer::Transformer(const ModelSpec& spec, int64_t row_length, int64_t decoder_length, const LoraSpec& lora,
                         TensorParallel parallel)
    : spec_(spec), parallel_(parallel), layout_(parallel.slice()) {
  check_spec(spec_);
  // Looked up tokens start with a variance of init_std^2 after the factor that they are multiplied with.
  const double scale = spec_.init == InitScheme::fan_in ? spec_.embedding_factor() : 1;
  token_table_ = {layout_.add("embedding.token", {spec_.vocab_size, spec_.d_model},
                              {Init::normal, float(spec_.init_std / scale)}, {}, Cut::rows)};
  std::vector<StackAxes> axes = stacks_of(spec_);
  stacks_.reserve(axes.size());  // recomputation holds their addresses
  for (StackAxes& stack : axes) {
    stack.lora = lora;
    stack.parallel = parallel_;
    const bool second = stack.cross_attention;
    stacks_.emplace_back(spec_, stack, second ? StackLengths{decoder_length, row_length} : StackLengths{row_length},
                         layout_);
  }
  add_head();
  layout_.finish();
}

void Transformer::add_head() {
  const int64_t d = spec_.d_model;
  const Init init = matrix_init(spec_, d);
  if (spec_.head == Head::vocabulary) {
    if (spec_.mlm_head) {
      head_dense_ = add_linear("mlm_head.dense", d, d, spec_.bias, init, layout_);
      mlm_norm_ = add_norm(spec_, "mlm_head.norm", layout_);
    }
    output_.weight = token_table_;
    if (!spec_.tied_embeddings)
      output_.weight = {layout_.add("lm_head.weight", {spec_.vocab_size, d}, init, {}, Cut::rows)};
    if (spec_.lm_head_bias)
      output_.bias = {layout_.add("lm_head.bias", {spec_.vocab_size}, {Init::zeros}, {}, Cut::rows)};
    return;
  }
  if (spec_.head == Head::sequence_labels) head_dense_ = add_linear("pooler.dense", d, d, spec_.bias, init, layout_);
  output_ = add_linear("classifier", spec_.n_labels, d, spec_.bias, init, layout_);
}

void Transformer::make_tables(Backend& backend) {
  for (Stack& stack : stacks_) stack.make_tables(backend);
}

Tensor Transformer::hidden(Tape& tape, const ModelInputs& inputs) const {
  const Tensor table = token_table_.on(tape);
  if (stacks_.size() == 1) return stacks_[0].forward(tape, table, inputs.main, {}, nullptr);
  const Memory memory{
      parallel_.spread(tape, stacks_[0].forward(tape, table, inputs.main, {}, nullptr), inputs.main.tokens.count()),
      inputs.cross_segments, inputs.n_cross_segments};
  tape.sum_gradient_in_float32(memory.hidden);  // every layer of the decoder reads it
  return stacks_[1].forward(tape, table, inputs.decoder, memory, nullptr);
}

Tensor Transformer::hidden_of_new(Tape& tape, const StackInputs& inputs, KvCache& cache) const {
  return stacks_.back().forward(tape, token_table_.on(tape), inputs, {}, &cache);
}

void Transformer::read(Tape& tape, const StackInputs& sequence, KvCache& cache, int slot) const {
  stacks_[1].remember(tape, stacks_[0].forward(tape, token_table_.on(tape), sequence, {}, nullptr), cache, slot);
}

Tensor Transformer::before_head(Tape& tape, const Tensor& hidden) const {
  const auto dense = [&](Unary activation) {
    return linear(tape, hidden, head_dense_.weight.on(tape), head_dense_.bias.on(tape), activation);
  };
  const auto dropped = [&](const Tensor& x) { return dropout(tape, x, dropout_threshold(spec_.dropout)); };
  switch (spec_.head) {
    case Head::sequence_labels:
      return dropped(dense(Unary::tanh));
    case Head::token_labels:
      return dropped(hidden);
    case Head::vocabulary:
      break;
  }
  if (!spec_.mlm_head) return hidden;
  Stream stream{dense(unary_of(spec_.activation)), {}};
  return normalise(tape, spec_, mlm_norm_, stream);
}

Loss Transformer::loss(Tape& tape, const ModelInputs& inputs, double label_smoothing, bool predict) const {
  const StackInputs& last = stacks_.size() > 1 ? inputs.decoder : inputs.main;
  Tensor h = parallel_.whole(tape, hidden(tape, inputs), last.tokens.count());
  if (inputs.target_rows) h = gather_rows(tape, h, inputs.target_rows);
  h = before_head(tape, h);
  LossSpec loss{.logit_scale = float(spec_.logit_factor()),
                .label_smoothing = float(label_smoothing),
                .chunk_rows = loss_chunk_rows_,
                .predict = predict};
  if (shares_vocabulary()) {
    h = parallel_.add_up(tape, h);
    loss.first_token = parallel_.part(spec_.vocab_size).begin;
    loss.vocabulary = spec_.vocab_size;
    loss.ranks = &parallel_.exchange();
  }
  return cross_entropy(tape, h, output_.weight.on(tape), output_.bias.on(tape), inputs.targets, loss);
}

Tensor Transformer::logits(Tape& tape, const Tensor& hidden) const {
  const float scale = float(spec_.logit_factor());
  Tensor z = linear(tape, before_head(tape, hidden), output_.weight.on(tape), output_.bias.on(tape));
  if (shares_vocabulary()) z = parallel_.gather(tape.backend(), z, spec_.vocab_size);
  if (scale == 1) return z;
  const Tensor scaled = tape.backend().make(z.shape(), z.dtype());
  tape.backend().cast().convert({.y = {scaled, Write::overwrite}, .x = z, .scale = scale});
  return scaled;
}

double Transformer::product_flops(const SequenceLengths& lengths) const {
  const bool two = stacks_.size() > 1;
  const auto main = double(lengths.main), decoder = double(lengths.decoder);
  const auto targets = double(lengths.targets ? lengths.targets : two ? lengths.decoder : lengths.main);
  // The rows that a matrix is applied to. An encoder's output has its keys and values made by the decoder's layers.
  const auto rows = [&](const std::string& name) {
    if (name.starts_with("mlm_head.") || name.starts_with("pooler.")) return targets;
    if (name.find("layers.") == std::string::npos) return 0.0;  // tables
    const bool of_decoder = name.starts_with("decoder.") && name.find(".cross_attention.kv.") == std::string::npos;
    return of_decoder ? decoder : main;
  };
  double weights = targets * double(spec_.n_outputs()) * double(spec_.d_model);  // the output layer, tied or not
  for (const ParameterEntry& entry : layout_.entries())
    if (entry.shape.rank() == 2) weights += rows(entry.name) * double(entry.whole.count());
  return 6 * weights;
}

double Transformer::attention_flops(const SequenceLengths& lengths) const {
  double pairs = 0;  // of queries and keys; causal ones are half of those that a window leaves
  for (const StackAxes& stack : stacks_of(spec_)) {
    const auto rows = double(stack.cross_attention ? lengths.decoder : lengths.main);
    for (int64_t layer = 0; layer < stack.n_layers; ++layer) {
      const auto window = double(spec_.layer_window(layer));
      pairs += rows * (window > 0 ? std::min(window, rows) : rows) * (stack.causal ? 0.5 : 1);
      if (stack.cross_attention) pairs += rows * double(lengths.main);
    }
  }
  return 12 * pairs * double(spec_.n_heads * spec_.head_width());
}

RankTraffic Transformer::rank_traffic(const SequenceLengths& lengths, double sequences, RecomputePolicy policy) const {
  RankTraffic t;
  if (parallel_.size() == 1) return t;
  const bool again = policy == RecomputePolicy::full, remakes = policy == RecomputePolicy::selective;
  for (const StackAxes& stack : stacks_of(spec_)) {
    const auto rows = double(stack.cross_attention ? lengths.decoder : lengths.main);
    const auto sublayers = double(stack.n_layers * (stack.cross_attention ? 3 : 2));
    // In forward spread and sum, in backward sum and spread, and what is made again; of the embedding sum alone.
    t.gathered += rows * (sublayers * (2 + again + remakes) + 1);
    t.scattered += rows * (sublayers * (2 + again) + 1);
    if (stack.cross_attention) t.gathered += double(lengths.main) * (1 + remakes), t.scattered += double(lengths.main);
  }
  const auto predicting = double(stacks_.size() > 1 ? lengths.decoder : lengths.main);
  t.gathered += predicting;
  if (shares_vocabulary()) t.summed += lengths.targets ? double(lengths.targets) : predicting;
  const double numbers = sequences * double(spec_.d_model);
  t.gathered *= numbers, t.scattered *= numbers, t.summed *= numbers;
  for (const ParameterEntry& entry : layout_.entries())  // gradients of norms, whose rows ranks share out
    if (entry.name.find("norm") != entry.name.npos && !entry.name.starts_with("mlm_head.") && entry.learns)
      t.summed += double(entry.count());
  return t;
}

}  // namespace mixtape
