#include "train/forward.h"

#include <cstring>

#include "core/ops/cast.h"

namespace mixtape {
namespace {

using Integers = std::vector<int64_t>;

// An int64 tensor [B, T] of the inputs; empty if it is absent and optional.
Integers integers(const SafetensorsFile& file, const char* name, const Extents& shape, bool required) {
  const StoredTensor* tensor = file.find(name);
  if (!tensor) {
    if (required) throw DataError("forward: the inputs have no {}", name);
    return {};
  }
  if (tensor->type != StoredType::i64 || tensor->shape != shape)
    throw DataError("forward: {} is {} {}, expected I64 {}", name, name_of(tensor->type), text_of(tensor->shape),
                    text_of(shape));
  Integers values(size_t(count_of(shape)));
  std::memcpy(values.data(), tensor->data.data(), values.size() * sizeof(int64_t));
  return values;
}

// A row's real tokens must be one run, so that they are one segment.
Segment segment_of_row(const Integers& mask, int64_t row, int64_t length) {
  int64_t begin = 0, end = length;
  if (!mask.empty()) {
    const int64_t* m = mask.data() + row * length;
    while (begin < length && m[begin] == 0) ++begin;
    end = begin;
    while (end < length && m[end] != 0) ++end;
    for (int64_t t = end; t < length; ++t)
      if (m[t] != 0)
        throw DataError("forward: attention_mask of row {} has a hole at {}; padding may only stand at the ends", row,
                        t);
  }
  return {int32_t(row * length + begin), int32_t(end - begin), int32_t(row * length + begin), int32_t(end - begin)};
}

// Ids of an int64 tensor [rows, length], each below `limit`.
std::vector<int32_t> ids_of(const Integers& values, const char* name, int64_t length, int64_t limit) {
  std::vector<int32_t> ids;
  for (size_t i = 0; i < values.size(); ++i) {
    if (values[i] < 0 || values[i] >= limit)
      throw DataError("forward: {}[{}, {}] is {}, expected 0 to {}", name, int64_t(i) / length, int64_t(i) % length,
                      values[i], limit - 1);
    ids.push_back(int32_t(values[i]));
  }
  return ids;
}

// [B, T] of ids that the model can take.
Extents shape_of(const SafetensorsFile& file, const char* name, const ModelSpec& spec) {
  const StoredTensor* ids = file.find(name);
  if (!ids || ids->shape.size() != 2) throw DataError("forward: the inputs have no {} [B, T], int64", name);
  if (count_of(ids->shape) == 0) throw DataError("forward: {} is {}, which is empty", name, text_of(ids->shape));
  if (spec.position == Position::learned && ids->shape[1] > spec.max_positions)
    throw DataError("forward: {} is {}, but the model has {} positions", name, text_of(ids->shape), spec.max_positions);
  return ids->shape;
}

// Models with an offset (OPT) count positions from the first real token, the others from the row's start.
std::vector<int32_t> positions_of(const std::vector<Segment>& segments, int64_t length, bool from_first_real) {
  std::vector<int32_t> positions;
  for (size_t r = 0; r < segments.size(); ++r) {
    const int64_t first = from_first_real ? segments[r].q_start - int64_t(r) * length : 0;
    for (int64_t t = 0; t < length; ++t) positions.push_back(int32_t(std::max<int64_t>(t - first, 0)));
  }
  return positions;
}

// Hugging Face shifts the labels of a decoder itself; those of the other families stand where they are predicted.
void add_targets(const Integers& labels, const Extents& shape, const ModelSpec& spec, Batch& batch) {
  const int64_t shift = spec.family == Family::decoder ? 1 : 0, length = shape[1];
  for (int64_t i = 0; i < shape[0] * length; ++i) {
    const bool has = !labels.empty() && i % length + shift < length && labels[size_t(i + shift)] != -100;
    const int64_t target = has ? labels[size_t(i + shift)] : -1;
    if (has && (target < 0 || target >= spec.n_outputs()))
      throw DataError("forward: labels[{}, {}] is {}, expected -100 or a token or label", i / length,
                      i % length + shift, target);
    batch.targets.push_back(int32_t(target));
    batch.n_targets += has;
  }
}

void add_decoder(const SafetensorsFile& file, const ModelSpec& spec, const std::vector<Segment>& encoder,
                 Batch& batch) {
  const Extents shape = shape_of(file, "decoder_input_ids", spec);
  const int64_t length = shape[1];
  if (shape[0] != batch.rows)
    throw DataError("forward: decoder_input_ids has {} rows, input_ids {}", shape[0], batch.rows);
  Batch::Decoder& d = batch.decoder;
  d.row_length = int32_t(length);
  d.tokens = ids_of(integers(file, "decoder_input_ids", shape, true), "decoder_input_ids", length, spec.vocab_size);
  const Integers mask = integers(file, "decoder_attention_mask", shape, false);
  std::vector<Segment> rows;
  for (int64_t r = 0; r < batch.rows; ++r) {
    const Segment own = rows.emplace_back(segment_of_row(mask, r, length));
    const Segment read = encoder[size_t(r)];
    if (own.q_len > 0) d.segments.push_back(own);
    if (own.q_len > 0 && read.k_len > 0) d.cross_segments.push_back({own.q_start, own.q_len, read.k_start, read.k_len});
  }
  d.positions = positions_of(rows, length, spec.position_offset > 0);
}

}  // namespace

Batch batch_from_inputs(const SafetensorsFile& file, const ModelSpec& spec) {
  const Extents shape = shape_of(file, "input_ids", spec);
  const int64_t rows = shape[0], length = shape[1];
  const Integers mask = integers(file, "attention_mask", shape, false);
  Batch batch{.rows = int32_t(rows), .row_length = int32_t(length)};
  batch.tokens = ids_of(integers(file, "input_ids", shape, true), "input_ids", length, spec.vocab_size);
  if (spec.token_types)
    batch.token_types =
        ids_of(integers(file, "token_type_ids", shape, false), "token_type_ids", length, spec.token_types);
  std::vector<Segment> segments;
  for (int64_t r = 0; r < rows; ++r) {
    segments.push_back(segment_of_row(mask, r, length));
    if (segments.back().q_len > 0) batch.segments.push_back(segments.back());
  }
  batch.positions = positions_of(segments, length, spec.position_offset > 0);
  const bool two = spec.family == Family::encoder_decoder;
  if (two) add_decoder(file, spec, segments, batch);
  const Extents predicted = two ? shape_of(file, "decoder_input_ids", spec) : shape;
  add_targets(integers(file, "labels", predicted, false), predicted, spec, batch);
  return batch;
}

std::vector<float> logits_of(Engine& engine) {
  Tape& tape = engine.tape();
  tape.clear();
  tape.set_training(false);
  const Tensor logits = engine.model().logits(tape, engine.model().hidden(tape, engine.inputs()));
  const Tensor wide = engine.backend().make(logits.shape(), DType::f32);
  engine.backend().cast().convert({.y = {wide, Write::overwrite}, .x = logits});
  std::vector<float> values(engine.arena().planning() ? 0 : size_t(wide.count()));
  if (!values.empty()) engine.backend().copy_to_host(values.data(), wide);
  return values;
}

}  // namespace mixtape
