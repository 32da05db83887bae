#include "train/checkpoint/huggingface/adapter.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "train/checkpoint/huggingface/arrange.h"
#include "train/checkpoint/huggingface/config_reader.h"

namespace mixtape {
namespace {

using huggingface::Json;

constexpr std::string_view weight_suffix = ".weight";
const std::string prefix = "base_model.model.";

std::string layer_of(const std::string& weight) { return weight.substr(0, weight.size() - weight_suffix.size()); }
std::string module_of(const TensorMapping& mapping) { return layer_of(mapping.name); }

bool is_adapted(const TensorMapping& mapping, const LoraSpec& lora) {
  return mapping.parameter.ends_with(weight_suffix) &&
         std::find(lora.layers.begin(), lora.layers.end(), layer_of(mapping.parameter)) != lora.layers.end();
}

// The inputs of the layer that a tensor holds rows of.
int64_t inputs_of(const TensorMapping& mapping) { return huggingface::row_elements(mapping); }

// A and B of each adapted tensor, in the file's layout: B's rows stand as the weight's do.
std::vector<TensorMapping> adapter_mappings(const std::vector<TensorMapping>& model, const LoraSpec& lora) {
  std::vector<TensorMapping> list;
  for (const TensorMapping& m : model) {
    if (!is_adapted(m, lora)) continue;
    const std::string layer = layer_of(m.parameter), module = prefix + module_of(m);
    const auto arrangement = m.arrangement == Arrangement::by_head ? Arrangement::by_head : Arrangement::rows;
    list.push_back({module + ".lora_A.weight", {lora.rank, inputs_of(m)}, layer + ".lora_a", 0, lora.rank});
    list.push_back({module + ".lora_B.weight",
                    {m.rows, lora.rank},
                    layer + ".lora_b",
                    m.first_row,
                    m.rows,
                    arrangement,
                    m.n_heads});
  }
  return list;
}

const char* task_of(const ModelSpec& spec) {
  switch (spec.head) {
    case Head::sequence_labels:
      return "SEQ_CLS";
    case Head::token_labels:
      return "TOKEN_CLS";
    case Head::vocabulary:
      break;
  }
  return spec.family == Family::encoder_decoder ? "SEQ_2_SEQ_LM" : spec.family == Family::decoder ? "CAUSAL_LM" : "";
}

std::string config_of(const ModelSpec& spec, const LoraSpec& lora, const std::string& base,
                      const std::vector<TensorMapping>& mappings) {
  std::vector<std::string> modules, heads;
  bool transposed = false;
  for (const TensorMapping& m : mappings) {
    if (is_adapted(m, lora)) {
      modules.push_back(module_of(m));
      transposed |= m.arrangement == Arrangement::transpose;
    }
    if (spec.head != Head::vocabulary && is_of_head(m.parameter) && m.parameter.ends_with(weight_suffix))
      heads.push_back(module_of(m));
  }
  Json config;
  config["peft_type"] = "LORA";
  if (const std::string task = task_of(spec); !task.empty()) config["task_type"] = task;
  config["base_model_name_or_path"] = base;
  config["r"] = lora.rank;
  config["lora_alpha"] = lora.alpha;
  config["lora_dropout"] = lora.dropout;
  config["target_modules"] = modules;
  config["modules_to_save"] = heads.empty() ? Json() : Json(heads);
  config["fan_in_fan_out"] = transposed;
  config["bias"] = "none";
  config["inference_mode"] = true;
  return config.dump(2) + "\n";
}

TensorSource adapter_source_of(const TensorMapping& mapping, const std::string& name, DType dtype,
                               const ParameterGetter& get) {
  const auto produce = [mapping, get](const ByteSink& sink) {
    const ParameterView view = get(mapping.parameter);
    const int64_t element = size_of(view.dtype), row = huggingface::row_elements(mapping) * element;
    const auto* data = static_cast<const std::byte*>(view.data) + mapping.first_row * row;
    const std::span<const std::byte> rows(data, size_t(mapping.rows * row));
    std::vector<std::byte> arranged(rows.size());
    TensorMapping whole = mapping;
    whole.first_row = 0;
    huggingface::to_file(whole, element, rows, arranged);
    sink(arranged);
  };
  return {name, stored_type(dtype), mapping.shape, produce, mapping.parameter};
}

}  // namespace

std::vector<TensorSource> adapter_sources(const ModelSpec& spec, const LoraSpec& lora, DType dtype,
                                          const ParameterGetter& get) {
  const std::vector<TensorMapping> model = tensor_mappings(spec);
  std::vector<TensorSource> sources;
  for (const TensorMapping& m : adapter_mappings(model, lora))
    sources.push_back(adapter_source_of(m, m.name, dtype, get));
  for (const TensorMapping& m : model)
    if (spec.head != Head::vocabulary && is_of_head(m.parameter))
      sources.push_back(adapter_source_of(m, prefix + m.name, dtype, get));
  return sources;
}

std::vector<FileRecord> write_adapter(const std::filesystem::path& directory, const ModelSpec& spec,
                                      const LoraSpec& lora, const std::string& base, std::vector<TensorSource> sources,
                                      const TensorWriter& write) {
  std::filesystem::create_directories(directory);
  return {write(directory / adapter_weights_name, std::move(sources)),
          write_text_file(directory / adapter_config_name, config_of(spec, lora, base, tensor_mappings(spec)))};
}

HfAdapter HfAdapter::open(const std::filesystem::path& directory, const std::vector<TensorMapping>& mappings) {
  HfAdapter adapter;
  const auto path = directory / adapter_config_name;
  if (!std::filesystem::exists(path)) return adapter;
  const Json json = Json::parse(read_text_file(path, 16 << 20), nullptr, false);
  if (json.is_discarded()) throw CheckpointError("{}: not valid JSON", path.string());
  const huggingface::ConfigReader config(json, path.string());
  if (const std::string type = config.text({"peft_type"}, ""); type != "LORA")
    config.fail("peft_type", "'{}' is not supported, LORA is", type);
  adapter.lora_ = {
      .rank = config.size({"r"}), .alpha = config.number("lora_alpha", 8), .dropout = config.number("lora_dropout", 0)};
  const SafetensorsFile& file = adapter.files_.emplace_back(SafetensorsFile::open(directory / adapter_weights_name));

  std::set<std::string> layers;
  for (const TensorMapping& m : mappings)
    if (m.parameter.ends_with(weight_suffix) && file.find(prefix + module_of(m) + ".lora_A.weight"))
      layers.insert(layer_of(m.parameter));
  adapter.lora_.layers.assign(layers.begin(), layers.end());
  adapter.mappings_ = adapter_mappings(mappings, adapter.lora_);
  if (adapter.mappings_.empty()) throw CheckpointError("{}: none of its layers is in the model", path.string());

  std::map<std::string, const StoredTensor*> shared;
  for (const TensorMapping& m : adapter.mappings_) {
    const StoredTensor& tensor = file.at(m.name);
    if (tensor.shape != m.shape)
      throw CheckpointError("{}: tensor '{}' is {}, expected {}", path.string(), m.name, text_of(tensor.shape),
                            text_of(m.shape));
    if (!m.parameter.ends_with(".lora_a")) continue;
    const auto [first, is_new] = shared.emplace(m.parameter, &tensor);
    if (!is_new && !std::ranges::equal(first->second->data, tensor.data))
      throw CheckpointError(
          "{}: '{}' differs from '{}', but layers that are one here share it; merge the adapter into "
          "its model first (PEFT's merge_and_unload)",
          path.string(), m.name, first->second->name);
  }
  return adapter;
}

void HfAdapter::read(std::string_view parameter, DType dtype, std::span<std::byte> out) const {
  bool found = false;
  for (const TensorMapping& m : mappings_) {
    if (m.parameter != parameter) continue;
    const StoredTensor& tensor = files_.front().at(m.name);
    if (memory_type(tensor.type) != dtype)
      throw CheckpointError("{}: stored as {}, expected {}", m.name, name_of(tensor.type), dtype);
    if ((m.first_row + m.rows) * huggingface::row_elements(m) * size_of(dtype) > int64_t(out.size()))
      throw CheckpointError("{}: more rows than {} has here", m.name, parameter);
    huggingface::from_file(m, size_of(dtype), tensor.data, out);
    found = true;
  }
  if (!found) throw CheckpointError("the adapter beside the model has no {}", parameter);
}

std::vector<float> HfAdapter::values_of(const std::string& parameter) const {
  std::vector<float> values;
  for (const TensorMapping& m : mappings_) {
    if (m.parameter != parameter) continue;
    std::vector<float> stored(size_t(count_of(m.shape)));
    read_fp32(files_.front().at(m.name), stored);
    values.resize(std::max(values.size(), size_t((m.first_row + m.rows) * huggingface::row_elements(m))));
    huggingface::from_file(m, sizeof(float), std::as_bytes(std::span(stored)),
                           std::as_writable_bytes(std::span(values)));
  }
  return values;
}

void HfAdapter::merge_into(std::string_view weight, std::span<float> values) const {
  if (!weight.ends_with(weight_suffix)) return;
  const std::string layer = layer_of(std::string(weight));
  if (std::find(lora_.layers.begin(), lora_.layers.end(), layer) == lora_.layers.end()) return;
  const std::vector<float> a = values_of(layer + ".lora_a"), b = values_of(layer + ".lora_b");
  const auto rank = size_t(lora_.rank), inputs = a.size() / rank, outputs = b.size() / rank;
  if (inputs * outputs != values.size())
    throw CheckpointError("{}: its adapter is for [{}, {}]", weight, outputs, inputs);
  std::vector<double> row(inputs);
  for (size_t o = 0; o < outputs; ++o) {
    std::fill(row.begin(), row.end(), 0.0);
    for (size_t r = 0; r < rank; ++r)
      for (size_t i = 0; i < inputs; ++i) row[i] += double(b[o * rank + r]) * double(a[r * inputs + i]);
    for (size_t i = 0; i < inputs; ++i) values[o * inputs + i] += float(lora_.scale() * row[i]);
  }
}

}  // namespace mixtape
