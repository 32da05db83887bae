#include "train/checkpoint/huggingface/int8.h"

#include <algorithm>
#include <cmath>

#include "core/base/code_scale.h"
#include "train/checkpoint/huggingface/arrange.h"

namespace mixtape::huggingface {
namespace {

constexpr const char* method = "compressed-tensors";
constexpr const char* format = "int-quantized";

// Scales are in the order of rows, one number each.
TensorMapping of_scales(TensorMapping mapping) {
  mapping.shape = {mapping.rows};
  return mapping;
}

struct Coded {
  std::vector<int8_t> codes;
  std::vector<float> scales;
};

// As Quantise (core/ops/cast.h) rounds rows, so that training with int8_qat has seen these very weights.
Coded code_rows(const TensorMapping& mapping, const ParameterView& view) {
  const int64_t cols = row_elements(mapping), element = size_of(view.dtype), count = mapping.rows * cols;
  std::vector<float> values(static_cast<size_t>(count));
  const auto* const first = static_cast<const std::byte*>(view.data) + mapping.first_row * cols * element;
  convert(view.dtype, {first, size_t(count * element)}, DType::f32, std::as_writable_bytes(std::span(values)));
  Coded coded{std::vector<int8_t>(values.size()), {}};
  for (int64_t r = 0; r < mapping.rows; ++r) {
    const float* const row = values.data() + r * cols;
    float largest = 0;
    for (int64_t i = 0; i < cols; ++i) {
      if (!std::isfinite(row[i]))
        throw NumericsError("{}: row {} holds {}, which int8 cannot express", mapping.parameter, mapping.first_row + r,
                            row[i]);
      largest = std::max(largest, std::abs(row[i]));
    }
    const float scale = code_scale(DType::i8, largest), by = scale == 0 ? 0 : 1 / scale;
    for (int64_t i = 0; i < cols; ++i)
      coded.codes[size_t(r * cols + i)] = int8_t(std::nearbyint(std::clamp(row[i] * by, -127.f, 127.f)));
    coded.scales.push_back(scale);
  }
  return coded;
}

template <class T>
void give(const TensorMapping& mapping, const std::vector<T>& values, const ByteSink& sink) {
  if (mapping.arrangement == Arrangement::rows) return sink(std::as_bytes(std::span(values)));
  std::vector<std::byte> arranged(values.size() * sizeof(T));
  to_file(mapping, sizeof(T), std::as_bytes(std::span(values)), arranged);
  sink(arranged);
}

// The modules with a matrix that is not stored as codes, the head that shares the table of tokens included.
std::vector<std::string> ignored_modules(ModelSpec spec) {
  const HfFamily& family = int8_family(spec);
  if (spec.head == Head::vocabulary) spec.tied_embeddings = false;
  std::vector<std::string> names;
  for (const TensorMapping& m : family.tensors(spec)) {
    const bool table = m.parameter.find("embedding.") != m.parameter.npos;
    if (m.shape.size() == 2 && m.name.ends_with(".weight") && !table && !is_layer_weight(m) &&
        !m.parameter.ends_with("relative_bias"))
      names.push_back(m.name.substr(0, m.name.size() - std::string_view(".weight").size()));
  }
  return names;
}

// How 8-bit integers come about, where that is `strategy`, from numbers of now or of the file.
void expect_int8(const ConfigReader& group, const char* operand, const char* strategy, bool dynamic) {
  const char* const expected = "int8 weights by channel and inputs by token, symmetric";
  if (!group.has(operand)) group.fail(operand, "is absent, expected {}", expected);
  const ConfigReader how = group.object(operand);
  if (how.number("num_bits", 0) != 8 || how.text({"type"}, "") != "int" || !how.flag("symmetric", false) ||
      how.flag("dynamic", false) != dynamic || how.text({"strategy"}, "") != strategy)
    group.fail(operand, "is {} bits of {} by {}, expected {}", how.number("num_bits", 0), how.text({"type"}, "?"),
               how.text({"strategy"}, "?"), expected);
}

}  // namespace

bool is_layer_weight(const TensorMapping& m) {
  return m.shape.size() == 2 && m.parameter.find("layers.") != m.parameter.npos && m.parameter.ends_with(".weight");
}

std::string scale_name(const TensorMapping& mapping) { return mapping.name + "_scale"; }

bool reads_int8(const ConfigReader& config) {
  if (!config.has("quantization_config")) return false;
  const ConfigReader q = config.object("quantization_config");
  const std::string how = q.text({"quant_method"}, ""), form = q.text({"format"}, "");
  if (how != method || form != format)
    config.fail("quantization_config", "is '{}' '{}', expected '{}' '{}': int8 codes with a scale for each output", how,
                form, method, format);
  const ConfigReader groups = q.object("config_groups");
  if (q.at("config_groups").size() != 1)
    q.fail("config_groups", "{} groups, expected one", q.at("config_groups").size());
  const ConfigReader group = groups.object(q.at("config_groups").begin().key().c_str());
  expect_int8(group, "weights", "channel", false);
  expect_int8(group, "input_activations", "token", true);
  return true;
}

const HfFamily& int8_family(const ModelSpec& spec) {
  const HfFamily& family = family_of(spec);
  for (const TensorMapping& m : family.tensors(spec))
    if (is_layer_weight(m) && m.arrangement == Arrangement::transpose) return native;
  return family;
}

Json int8_config(const ModelSpec& spec) {
  const auto operand = [](const char* strategy, bool dynamic) {
    return Json{{"dynamic", dynamic}, {"num_bits", 8}, {"strategy", strategy}, {"symmetric", true}, {"type", "int"}};
  };
  const Json group = {
      {"input_activations", operand("token", true)}, {"targets", {"Linear"}}, {"weights", operand("channel", false)}};
  return {{"config_groups", {{"group_0", group}}},
          {"format", format},
          {"ignore", ignored_modules(spec)},
          {"quant_method", method},
          {"quantization_status", "compressed"}};
}

void add_int8_sources(const TensorMapping& mapping, const ParameterGetter& get, std::vector<TensorSource>& sources) {
  sources.push_back({mapping.name, StoredType::i8, mapping.shape, [mapping, get](const ByteSink& sink) {
                       give(mapping, code_rows(mapping, get(mapping.parameter)).codes, sink);
                     }});
  sources.push_back({scale_name(mapping), StoredType::f32, {mapping.rows, 1}, [mapping, get](const ByteSink& sink) {
                       give(of_scales(mapping), code_rows(mapping, get(mapping.parameter)).scales, sink);
                     }});
}

void check_int8(const SafetensorsModel& files, const TensorMapping& mapping, const std::string& what) {
  if (mapping.arrangement == Arrangement::transpose)
    throw CheckpointError("{}: int8 weights of '{}', a transposed layer (Conv1D), have no form that is known here",
                          what, mapping.name);
  const StoredTensor& codes = files.at(mapping.name);
  if (codes.type != StoredType::i8)
    throw CheckpointError("{}: tensor '{}' is stored as {}, expected I8 by config.json's quantization_config", what,
                          mapping.name, name_of(codes.type));
  const StoredTensor* const scale = files.find(scale_name(mapping));
  if (!scale)
    throw CheckpointError("{}: tensor '{}' is missing, the scales of '{}'", what, scale_name(mapping), mapping.name);
  if (scale->shape != Extents{mapping.rows, 1} && scale->shape != Extents{mapping.rows})
    throw CheckpointError("{}: tensor '{}' is {}, expected [{}, 1], a scale for each output", what, scale->name,
                          text_of(scale->shape), mapping.rows);
  if (scale->type != StoredType::f32 && scale->type != StoredType::bf16 && scale->type != StoredType::f16)
    throw CheckpointError("{}: tensor '{}' is stored as {}, expected F32, F16 or BF16", what, scale->name,
                          name_of(scale->type));
  std::vector<float> values(static_cast<size_t>(mapping.rows));
  read_fp32(*scale, values);
  for (const float s : values)
    if (!(s >= 0 && std::isfinite(s)))
      throw CheckpointError("{}: tensor '{}' holds {}, expected finite scales, none below 0", what, scale->name, s);
}

void read_int8(const SafetensorsModel& files, const TensorMapping& mapping, std::span<int8_t> codes,
               std::span<float> scales) {
  from_file(mapping, 1, files.at(mapping.name).data, std::as_writable_bytes(codes));
  std::vector<float> values(static_cast<size_t>(mapping.rows));
  read_fp32(files.at(scale_name(mapping)), values);
  from_file(of_scales(mapping), sizeof(float), std::as_bytes(std::span(values)), std::as_writable_bytes(scales));
}

}  // namespace mixtape::huggingface
