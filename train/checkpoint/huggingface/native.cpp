// Architectures that transformers does not have: every axis of the spec by its own name, tensors by Mixtape's names.
#include "train/checkpoint/huggingface/family.h"
#include "train/checkpoint/json_fields.h"

namespace mixtape::huggingface {
namespace {

ModelSpec read_native(const ConfigReader& config) {
  // Axes that an older version did not have are at the values that it stood for, the defaults.
  ModelSpec spec;
  Json model = json_fields::encode(spec);
  const Json& stored = config.at("model");
  if (stored.is_object()) model.update(stored);
  json_fields::decode(stored.is_object() ? model : stored, spec, config.what() + ": model");
  return spec;
}

void write_native(const ModelSpec& spec, Json& config) { config["model"] = json_fields::encode(spec); }

std::vector<TensorMapping> native_tensors(const ModelSpec& spec) {
  MappingList list(spec);
  for (const ParameterShape& p : parameter_shapes(spec)) list.whole(p.name, p.name);
  return list.take();
}

bool is_native_buffer(std::string_view) { return false; }

}  // namespace

const HfFamily native{"mixtape", "MixtapeForCausalLM", "", read_native, write_native, native_tensors, is_native_buffer};

}  // namespace mixtape::huggingface
