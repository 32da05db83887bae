// Writing a model directory that transformers loads.
#include <algorithm>
#include <map>

#include "train/checkpoint/huggingface/arrange.h"
#include "train/checkpoint/huggingface/int8.h"

namespace mixtape {
namespace {

using huggingface::HfFamily;
using huggingface::Json;

std::string torch_name(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return "float32";
    case DType::f16:
      return "float16";
    case DType::bf16:
      return "bfloat16";
    default:
      throw Error("config.json: weights cannot be {}", dtype);
  }
}

void write_ids(Json& json, const SpecialIds& ids) {
  const auto value = [](std::optional<int64_t> id) { return id ? Json(*id) : Json(); };
  json["bos_token_id"] = value(ids.bos);
  json["eos_token_id"] = value(ids.eos);
  json["pad_token_id"] = value(ids.pad);
  if (ids.decoder_start) json["decoder_start_token_id"] = *ids.decoder_start;
}

std::string generation_config_json(const SpecialIds& ids) {
  Json json = {{"_from_model_config", true}};
  write_ids(json, ids);
  return json.dump(2) + "\n";
}

// Why no family has this architecture: the differences to the one that comes closest.
std::string explain_misfit(const ModelSpec& spec) {
  std::vector<std::string> fewest;
  for (const HfFamily* family : huggingface::families())
    if (auto differences = huggingface::misfits(*family, spec);
        family != &huggingface::native && (fewest.empty() || differences.size() < fewest.size()))
      fewest = std::move(differences);
  return fmt::format("{}", fmt::join(fewest, "; "));
}

TensorSource source_of(const TensorMapping& mapping, const ParameterGetter& get, DType dtype) {
  const auto zeros = [mapping, dtype](const ByteSink& sink) {
    sink(std::vector<std::byte>(size_t(count_of(mapping.shape) * size_of(dtype))));
  };
  if (mapping.arrangement == Arrangement::zeros) return {mapping.name, stored_type(dtype), mapping.shape, zeros};
  const auto produce = [mapping, get, dtype](const ByteSink& sink) {
    const ParameterView view = get(mapping.parameter);
    const int64_t element = size_of(view.dtype), row = huggingface::row_elements(mapping);
    const auto* data = static_cast<const std::byte*>(view.data);
    std::span<const std::byte> bytes(data + mapping.first_row * row * element, size_t(mapping.rows * row * element));
    std::vector<std::byte> arranged;
    if (mapping.arrangement != Arrangement::rows) {
      arranged.resize(bytes.size());
      huggingface::to_file(mapping, element, bytes, arranged);
      bytes = arranged;
    }
    if (view.dtype == dtype) return sink(bytes);
    constexpr size_t chunk = 1 << 18;  // elements
    std::vector<std::byte> converted;
    for (size_t i = 0; i * size_t(element) < bytes.size(); i += chunk) {
      const auto piece = bytes.subspan(i * size_t(element))
                             .first(std::min(chunk * size_t(element), bytes.size() - i * size_t(element)));
      converted.resize(piece.size() / size_t(element) * size_t(size_of(dtype)));
      huggingface::convert(view.dtype, piece, dtype, converted);
      sink(converted);
    }
  };
  return {mapping.name, stored_type(dtype), mapping.shape, produce, mapping.parameter};
}

}  // namespace

std::string config_json(const ModelSpec& spec, DType dtype, const SpecialIds& ids, bool int8) {
  const HfFamily& family = int8 ? huggingface::int8_family(spec) : huggingface::family_of(spec);
  Json config;
  config["architectures"] = {family.architecture};
  config["model_type"] = family.model_type;
  write_ids(config, ids);
  family.write_config(spec, config);  // may know an id better: RoBERTa's positions start behind the padding's
  if (!ids.labels.empty()) huggingface::write_labels(ids.labels, config);
  config["tie_word_embeddings"] = spec.tied_embeddings;
  config["dtype"] = config["torch_dtype"] = torch_name(dtype);
  config["use_cache"] = true;
  if (int8) config["quantization_config"] = huggingface::int8_config(spec);
  return config.dump(2) + "\n";
}

std::vector<TensorSource> model_sources(const ModelSpec& spec, const ParameterGetter& get,
                                        const ExportOptions& options) {
  const HfFamily& family = options.int8 ? huggingface::int8_family(spec) : huggingface::family_of(spec);
  std::vector<TensorSource> sources;
  for (const TensorMapping& mapping : family.tensors(spec))
    if (options.int8 && huggingface::is_layer_weight(mapping))
      huggingface::add_int8_sources(mapping, get, sources);
    else
      sources.push_back(source_of(mapping, get, options.dtype));
  return sources;
}

std::vector<FileRecord> export_huggingface(const std::filesystem::path& directory, const ModelSpec& spec,
                                           const ParameterGetter& get, const ExportOptions& options) {
  if (&huggingface::family_of(spec) == &huggingface::native && !options.allow_native)
    throw ConfigError("no architecture of transformers is this model; the closest differs: {}", explain_misfit(spec));
  if (is_huggingface_directory(directory))
    throw CheckpointError("{} holds a model already; remove it or choose another directory", directory.string());
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  if (error) throw CheckpointError("cannot create {}: {}", directory.string(), error.message());

  std::vector<FileRecord> files =
      write_safetensors_model(directory, model_sources(spec, get, options), options.max_shard_bytes, options.write);
  files.push_back(write_text_file(directory / "generation_config.json", generation_config_json(options.ids)));
  for (const std::filesystem::path& file : options.tokenizer_files)
    files.push_back(copy_file_durably(file, directory / file.filename()));
  // Last: a directory without it is not taken for a model.
  files.push_back(
      write_text_file(directory / "config.json", config_json(spec, options.dtype, options.ids, options.int8)));
  return files;
}

std::vector<FileRecord> export_huggingface(const std::filesystem::path& directory, const HfModel& model,
                                           ExportOptions options) {
  options.ids = model.ids;
  options.tokenizer_files = model.tokenizer_files;
  std::map<std::string, int64_t> counts;
  for (const ParameterShape& p : parameter_shapes(model.spec)) counts[p.name] = count_of(p.shape);
  std::string held;
  std::vector<float> values;
  const auto get = [&](const std::string& name) -> ParameterView {
    if (name != held) {
      values.resize(size_t(counts.at(name)));
      model.read(name, values);
      held = name;
    }
    return {DType::f32, values.data()};
  };
  return export_huggingface(directory, model.spec, get, options);
}

}  // namespace mixtape
