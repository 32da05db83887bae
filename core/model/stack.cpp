#include "core/model/stack.h"

#include "core/model/rotary.h"
#include "core/ops/dropout.h"
#include "core/ops/embedding.h"

namespace mixtape {
namespace {

// What a recomputed block is given, in this order.
enum BlockInput { stream, positions, segments, n_segments, memory, cross_segments, n_cross_segments, block_inputs };

// A table that is no parameter: made on the host, read by every step.
Tensor make_table(Backend& backend, Shape shape, const std::vector<float>& values) {
  const Tensor table = backend.make(shape, DType::f32, Category::batch);
  if (!backend.planning()) backend.copy_from_host(table, values.data());
  return table;
}

}  // namespace

std::vector<StackAxes> stacks_of(const ModelSpec& spec) {
  switch (spec.family) {
    case Family::decoder:
      return {{.n_layers = spec.n_layers, .token_types = spec.token_types}};
    case Family::encoder:
      return {{.n_layers = spec.n_layers, .causal = false, .token_types = spec.token_types}};
    case Family::encoder_decoder:
      return {{.prefix = "encoder.", .n_layers = spec.n_layers, .causal = false, .token_types = spec.token_types},
              {.prefix = "decoder.", .n_layers = spec.decoder_layers(), .cross_attention = true}};
  }
  return {};
}

Stack::Stack(const ModelSpec& spec, StackAxes axes, StackLengths lengths, ParameterLayout& layout)
    : spec_(spec), axes_(std::move(axes)), lengths_(lengths) {
  const std::string& prefix = axes_.prefix;
  const Init table{Init::normal, float(spec.init_std)};
  if (spec.position == Position::learned)
    position_table_ = {
        layout.add(prefix + "embedding.position", {spec.max_positions + spec.position_offset, spec.d_model}, table)};
  if (axes_.token_types)
    type_table_ = {layout.add(prefix + "embedding.type", {axes_.token_types, spec.d_model}, table)};
  if (spec.embedding_norm) embedding_norm_ = add_norm(spec, prefix + "embedding.norm", layout);
  if (spec.position == Position::relative_bias)
    relative_bias_ = {layout.add(prefix + "relative_bias", {spec.relative_buckets, spec.n_heads},
                                 matrix_init(spec, spec.d_model), {}, Cut::columns)};
  blocks_.reserve(size_t(axes_.n_layers));
  for (int64_t layer = 0; layer < axes_.n_layers; ++layer)
    blocks_.emplace_back(spec, axes_, layer, fmt::format("{}layers.{}.", prefix, layer), layout);
  if (spec.final_norm) final_norm_ = add_norm(spec, prefix + "final_norm", layout);
}

void Stack::make_tables(Backend& backend) {
  const int64_t positions = lengths_.rows;
  const auto length = size_t(backend.planning() ? 0 : positions);
  if (spec_.position == Position::rope) {
    const int64_t width = rotary_dim(spec_);
    rope_table_ = make_table(backend, {positions, width}, rotary_table(spec_, width, int64_t(length)));
  }
  if (spec_.position == Position::sinusoidal) {
    std::vector<float> values(length * size_t(spec_.d_model));
    sinusoidal_positions(values.data(), int64_t(length), spec_.d_model);
    sinusoids_ = make_table(backend, {positions, spec_.d_model}, values);
  }
  if (spec_.position == Position::alibi) {
    std::vector<float> slopes(size_t(spec_.n_heads));
    mixtape::alibi_slopes(slopes.data(), spec_.n_heads);
    const Run here = axes_.parallel.part(spec_.n_heads);
    slopes.erase(slopes.begin(), slopes.begin() + here.begin);
    alibi_slopes_ = make_table(backend, {here.count}, slopes);
  }
}

Tensor Stack::embed(Tape& tape, const Tensor& token_table, const StackInputs& inputs) const {
  const Tensor positions = sinusoids_ ? sinusoids_ : position_table_.on(tape);
  Tensor x =
      embedding(tape, {inputs.tokens, inputs.positions, inputs.types}, {token_table, positions, type_table_.on(tape)},
                {.scale = float(spec_.embedding_factor()),
                 .position_offset = spec_.position_offset,
                 .pad_id = spec_.pad_id,
                 .first_token = axes_.parallel.part(spec_.vocab_size).begin,
                 .vocabulary = spec_.vocab_size});
  x = axes_.parallel.sum(tape, std::move(x));
  if (spec_.embedding_norm) {
    Stream stream{x, {}};
    x = normalise(tape, spec_, embedding_norm_, stream, axes_.parallel);
  }
  const int64_t first_row = axes_.parallel.first_row(inputs.tokens.count());
  return dropout(tape, x, dropout_threshold(spec_.dropout), first_row * spec_.d_model);
}

SequenceInputs Stack::sequence(Tape& tape, const StackInputs& inputs, const Memory& memory, KvCache* cache) const {
  return {.positions = inputs.positions,
          .segments = inputs.segments,
          .n_segments = inputs.n_segments,
          .rope_table = rope_table_,
          .attention_bias = alibi_slopes_ ? alibi_slopes_ : relative_bias_.on(tape),
          .max_length = std::min(lengths_.rows, inputs.positions.count()),
          .cache = cache,
          .memory = memory.hidden,
          .cross_segments = memory.segments,
          .n_cross_segments = memory.n_segments,
          .max_memory_length = lengths_.memory};
}

// What recomputation runs twice: the stream in, the stream out, each as one tensor.
void Stack::run_block(Tape& tape, const void* stack, int64_t layer, std::span<const Tensor> in, std::span<Tensor> out) {
  const auto& self = *static_cast<const Stack*>(stack);
  const StackInputs rows{.positions = in[positions], .segments = in[segments], .n_segments = in[n_segments]};
  const Memory read{in[memory], in[cross_segments], in[n_cross_segments]};
  const SequenceInputs sequence = self.sequence(tape, rows, read, nullptr);
  out[0] = joined(tape, self.blocks_[size_t(layer)].forward(tape, {in[stream], {}}, sequence));
}

Tensor Stack::forward(Tape& tape, const Tensor& token_table, const StackInputs& inputs, const Memory& memory,
                      KvCache* cache) const {
  Stream stream{embed(tape, token_table, inputs), {}};
  const SequenceInputs shared = sequence(tape, inputs, memory, cache);
  for (int64_t layer = 0; layer < axes_.n_layers; ++layer) {
    tape.begin_section();
    if (tape.policy() == RecomputePolicy::full && tape.training()) {
      const std::array<Tensor, block_inputs> in{joined(tape, stream), inputs.positions, inputs.segments,
                                                inputs.n_segments,    memory.hidden,    memory.segments,
                                                memory.n_segments};
      std::array<Tensor, 1> out;
      stream = {};
      tape.recompute(run_block, this, layer, in, out);
      stream.h = out[0];
    } else {
      stream = blocks_[size_t(layer)].forward(tape, std::move(stream), shared);
    }
  }
  return spec_.final_norm ? normalise(tape, spec_, final_norm_, stream, axes_.parallel) : joined(tape, stream);
}

void Stack::remember(Tape& tape, const Tensor& encoded, KvCache& cache, int slot) const {
  for (int64_t layer = 0; layer < axes_.n_layers; ++layer)
    cache.remember(slot, layer, blocks_[size_t(layer)].memory_of(tape, encoded));
}

}  // namespace mixtape
