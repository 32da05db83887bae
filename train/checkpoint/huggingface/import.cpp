// Opening a model directory and reading Mixtape's parameters from it.
#include <algorithm>
#include <cmath>
#include <set>

#include "train/checkpoint/huggingface/adapter.h"
#include "train/checkpoint/huggingface/arrange.h"
#include "train/checkpoint/huggingface/int8.h"

namespace mixtape {
namespace {

using huggingface::ConfigReader;
using huggingface::HfFamily;
using huggingface::Json;

ConfigReader open_config(const std::filesystem::path& directory) {
  const auto path = directory / "config.json";
  if (!std::filesystem::exists(path))
    throw CheckpointError("{}: no config.json in it; expected a model's directory", directory.string());
  const Json json = Json::parse(read_text_file(path, 16 << 20), nullptr, false);
  if (json.is_discarded()) throw CheckpointError("{}: not valid JSON", path.string());
  return ConfigReader(json, path.string());
}

// Each axis within the range of its declaration, and the few rules across axes that shapes depend on.
void check_spec(const ModelSpec& s, const std::string& what) {
  for_each_field<ModelSpec>([&](const auto& f) {
    if constexpr (std::is_arithmetic_v<typename std::decay_t<decltype(f)>::Type>)
      if (const double value = double(s.*f.member); !std::isfinite(value) || !f.range.contains(value))
        throw CheckpointError("{}: {} is {}, expected {} to {}", what, f.name, value, f.range.least, f.range.most);
  });
  if (s.n_heads % s.kv_heads() != 0)
    throw CheckpointError("{}: {} heads cannot share {} heads of keys and values", what, s.n_heads, s.kv_heads());
  if (s.head_dim == 0 && s.d_model % s.n_heads != 0)
    throw CheckpointError("{}: the width {} is not divisible by {} heads", what, s.d_model, s.n_heads);
  if (s.head_width() < 1 || s.head_width() > 65536) throw CheckpointError("{}: heads {} wide", what, s.head_width());
}

// The name that a mapping's tensor has in these files: as transformers writes it, as it once did, or as in a bare
// model.
std::string name_in_files(const SafetensorsModel& tensors, const HfFamily& family, const std::string& name) {
  std::vector<std::string> candidates{name};
  if (family.other_names)
    for (std::string& other : family.other_names(name)) candidates.push_back(std::move(other));
  const std::string_view prefix = family.base_prefix;
  for (const std::string& candidate : candidates) {
    if (tensors.find(candidate)) return candidate;
    if (!prefix.empty() && candidate.starts_with(prefix))
      if (std::string bare = candidate.substr(prefix.size()); tensors.find(bare)) return bare;
  }
  return name;
}

bool is_floating(StoredType type) {
  return type == StoredType::f32 || type == StoredType::f16 || type == StoredType::bf16 || type == StoredType::f64;
}

std::string first_of(const std::vector<std::string>& names) {
  constexpr size_t shown = 8;
  const std::vector<std::string> head(names.begin(), names.begin() + int64_t(std::min(names.size(), shown)));
  const std::string rest = names.size() > shown ? fmt::format(" and {} more", names.size() - shown) : "";
  return fmt::format("{}{}", fmt::join(head, ", "), rest);
}

}  // namespace

std::vector<std::filesystem::path> tokenizer_files_in(const std::filesystem::path& directory) {
  std::vector<std::filesystem::path> files;
  for (const char* name : {"tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "merges.txt", "vocab.txt",
                           "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"})
    if (std::filesystem::is_regular_file(directory / name)) files.push_back(directory / name);
  return files;
}

bool is_huggingface_directory(const std::filesystem::path& directory) {
  return std::filesystem::is_regular_file(directory / "config.json");
}

ModelSpec with_head(ModelSpec body, const ModelSpec& head) {
  body.head = head.head;
  body.n_labels = head.n_labels;
  if (head.head != Head::vocabulary) return body;
  body.mlm_head = head.mlm_head;
  body.lm_head_bias = head.lm_head_bias;
  body.tied_embeddings = head.tied_embeddings;
  return body;
}

HfModel import_huggingface(const std::filesystem::path& directory, const ModelSpec* head_of) {
  const ConfigReader config = open_config(directory);
  const std::string what = (directory / "config.json").string();
  const HfFamily& family = huggingface::family_named(config.text({"model_type"}, ""), what);
  HfModel model;
  model.directory_ = directory;
  model.model_type = family.model_type;
  model.spec = family.read_config(config);
  check_spec(model.spec, what);
  model.ids = {config.id("bos_token_id"), config.id("eos_token_id"), config.id("pad_token_id"),
               config.id("decoder_start_token_id"), huggingface::read_labels(config)};
  model.tokenizer_files = tokenizer_files_in(directory);
  model.tensors_ = SafetensorsModel::open(directory);
  if (family.read_files) family.read_files(model.tensors_, model.spec);
  const bool other_head = head_of && head_of->head != model.spec.head;
  if (other_head) model.spec = with_head(model.spec, *head_of);
  model.mappings_ = family.tensors(model.spec);
  model.int8 = huggingface::reads_int8(config);

  std::set<std::string> used, fresh;
  for (TensorMapping& mapping : model.mappings_) {
    mapping.name = name_in_files(model.tensors_, family, mapping.name);
    const StoredTensor* tensor = model.tensors_.find(mapping.name);
    if (mapping.arrangement == Arrangement::zeros) {
      if (tensor) used.insert(mapping.name), model.ignored.push_back(mapping.name);
      continue;
    }
    if (!tensor && other_head && is_of_head(mapping.parameter)) {
      fresh.insert(mapping.parameter);
      continue;
    }
    if (!tensor) {
      model.missing.push_back(mapping.name);
      continue;
    }
    used.insert(mapping.name);
    if (tensor->shape != mapping.shape)
      throw CheckpointError("{}: tensor '{}' is {}, expected {} by config.json", directory.string(), mapping.name,
                            text_of(tensor->shape), text_of(mapping.shape));
    if (model.int8 && huggingface::is_layer_weight(mapping)) {
      huggingface::check_int8(model.tensors_, mapping, directory.string());
      used.insert(huggingface::scale_name(mapping));
    } else if (!is_floating(tensor->type))
      throw CheckpointError("{}: tensor '{}' is stored as {}, expected F32, F16, BF16 or F64", directory.string(),
                            mapping.name, name_of(tensor->type));
    if (mapping.parameter == "embedding.token") model.dtype = memory_type(tensor->type).value_or(DType::f32);
  }
  for (const std::string& name : model.tensors_.names()) {
    if (used.contains(name)) continue;
    const bool harmless = family.is_buffer(name) || (model.spec.tied_embeddings && name == "lm_head.weight") ||
                          (other_head && !name.starts_with(family.base_prefix));
    (harmless ? model.ignored : model.unused).push_back(name);
  }
  model.fresh.assign(fresh.begin(), fresh.end());
  // Its tensors are named as this family's are, whatever other names these files use.
  if (HfAdapter adapter = HfAdapter::open(directory, family.tensors(model.spec)); adapter.lora().rank > 0)
    model.adapter_ = std::make_shared<const HfAdapter>(std::move(adapter));
  if (model.int8 && model.adapter_)
    throw CheckpointError("{}: an adapter beside int8 weights; merge it into the model that these were made of",
                          directory.string());
  return model;
}

void HfModel::expect_complete() const {
  if (!missing.empty())
    throw CheckpointError("{}: {} tensors that config.json asks for are missing: {}", directory_.string(),
                          missing.size(), first_of(missing));
  if (!unused.empty())
    throw CheckpointError("{}: {} tensors belong to no part of the model that config.json describes: {}",
                          directory_.string(), unused.size(), first_of(unused));
}

void HfModel::read(std::string_view parameter, std::span<float> out) const {
  int64_t coded = 0;
  for (const TensorMapping& mapping : mappings_)
    if (int8 && mapping.parameter == parameter && huggingface::is_layer_weight(mapping)) coded += mapping.rows;
  if (coded > 0) return decode(parameter, coded, out);
  gather(parameter, DType::f32, std::as_writable_bytes(out));
  if (adapter_) adapter_->merge_into(parameter, out);
}

void HfModel::read(std::string_view parameter, DType dtype, std::span<std::byte> out) const {
  if (adapter_ && is_adapter(parameter)) return adapter_->read(parameter, dtype, out);
  for (const TensorMapping& mapping : mappings_)
    if (mapping.parameter == parameter)
      if (const StoredTensor& tensor = tensors_.at(mapping.name); memory_type(tensor.type) != dtype)
        throw CheckpointError("{}: tensor '{}' is stored as {}, expected {}", directory_.string(), mapping.name,
                              name_of(tensor.type), dtype);
  gather(parameter, dtype, out);
}

void HfModel::read_codes(std::string_view parameter, std::span<int8_t> codes, std::span<float> scales) const {
  int64_t rows = 0;
  for (const TensorMapping& mapping : mappings_) {
    if (mapping.parameter != parameter) continue;
    const int64_t end = mapping.first_row + mapping.rows;
    if (!int8 || !huggingface::is_layer_weight(mapping) || end > int64_t(scales.size()) ||
        end * huggingface::row_elements(mapping) > int64_t(codes.size()))
      throw Error("{}: not {} codes with {} scales", parameter, codes.size(), scales.size());
    huggingface::read_int8(tensors_, mapping, codes, scales);
    rows += mapping.rows;
  }
  if (rows != int64_t(scales.size()))
    throw CheckpointError("{}: parameter '{}' has {} rows, found {}", directory_.string(), parameter, scales.size(),
                          rows);
}

// Of codes their products with the scales.
void HfModel::decode(std::string_view parameter, int64_t rows, std::span<float> out) const {
  std::vector<int8_t> codes(out.size());
  std::vector<float> scales(static_cast<size_t>(rows));
  read_codes(parameter, codes, scales);
  const size_t cols = out.size() / scales.size();
  for (size_t i = 0; i < out.size(); ++i) out[i] = scales[i / cols] * float(codes[i]);
}

void HfModel::gather(std::string_view parameter, DType dtype, std::span<std::byte> out) const {
  const int64_t element = size_of(dtype);
  int64_t filled = 0;
  for (const TensorMapping& mapping : mappings_) {
    if (mapping.parameter != parameter) continue;
    const StoredTensor& tensor = tensors_.at(mapping.name);
    filled += count_of(mapping.shape) * element;
    if ((mapping.first_row + mapping.rows) * huggingface::row_elements(mapping) * element > int64_t(out.size()))
      throw Error("{}: the buffer of {} bytes is too small", parameter, out.size());
    if (memory_type(tensor.type) == dtype) {
      huggingface::from_file(mapping, element, tensor.data, out);
    } else {
      std::vector<float> values(size_t(count_of(mapping.shape)));
      read_fp32(tensor, values);
      huggingface::from_file(mapping, element, std::as_bytes(std::span(values)), out);
    }
  }
  if (filled != int64_t(out.size()))
    throw CheckpointError("{}: parameter '{}' takes {} bytes, found {}", directory_.string(), parameter, out.size(),
                          filled);
}

std::vector<NamedTensor> HfModel::to_file(std::string_view parameter, std::span<const float> values) const {
  std::vector<NamedTensor> list;
  for (const TensorMapping& mapping : mappings_) {
    if (mapping.parameter != parameter) continue;
    if ((mapping.first_row + mapping.rows) * huggingface::row_elements(mapping) > int64_t(values.size()))
      throw Error("{}: {} values are too few", parameter, values.size());
    NamedTensor& tensor = list.emplace_back(NamedTensor{mapping.name, mapping.shape, {}});
    tensor.values.resize(size_t(count_of(mapping.shape)));
    huggingface::to_file(mapping, sizeof(float), std::as_bytes(values),
                         std::as_writable_bytes(std::span(tensor.values)));
  }
  if (list.empty()) throw Error("{}: no tensor of the file holds this parameter", parameter);
  return list;
}

}  // namespace mixtape
