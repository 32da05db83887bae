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

}  // namespace

Batch batch_from_inputs(const SafetensorsFile& file, const ModelSpec& spec) {
  const StoredTensor* ids = file.find("input_ids");
  if (!ids || ids->shape.size() != 2) throw DataError("forward: the inputs have no input_ids [B, T], int64");
  const Extents shape = ids->shape;
  const int64_t rows = shape[0], length = shape[1];
  const Integers tokens = integers(file, "input_ids", shape, true);
  const Integers mask = integers(file, "attention_mask", shape, false), labels = integers(file, "labels", shape, false);

  Batch batch{.rows = int32_t(rows), .row_length = int32_t(length)};
  for (int64_t r = 0; r < rows; ++r) {
    const Segment segment = segment_of_row(mask, r, length);
    if (segment.q_len > 0) batch.segments.push_back(segment);
    for (int64_t t = 0; t < length; ++t) {
      const int64_t i = r * length + t;
      if (tokens[i] < 0 || tokens[i] >= spec.vocab_size)
        throw DataError("forward: input_ids[{}, {}] is {}, the vocabulary has {}", r, t, tokens[i], spec.vocab_size);
      batch.tokens.push_back(int32_t(tokens[i]));
      // Models with an offset (OPT) count positions from the first real token, the others from the row's start.
      const int64_t first = spec.position_offset > 0 ? segment.q_start - r * length : 0;
      batch.positions.push_back(int32_t(std::max<int64_t>(t - first, 0)));
      int64_t target = -1;
      if (!labels.empty() && t + 1 < length && labels[i + 1] != -100) {
        target = labels[i + 1];
        if (target < 0 || target >= spec.vocab_size)
          throw DataError("forward: labels[{}, {}] is {}, expected -100 or a token", r, t + 1, target);
      }
      batch.targets.push_back(int32_t(target));
      batch.n_targets += target >= 0;
    }
  }
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
