#include "train/checkpoint/huggingface/family.h"

#include <cmath>

#include "train/checkpoint/json_fields.h"

namespace mixtape {
namespace huggingface {
namespace {

// Hugging Face's name of an activation, and ours, plain and gated. The first of equals is the one that is written.
struct ActivationName {
  const char* name;
  std::optional<Activation> plain, gated;
};
const ActivationName activation_names[] = {
    {"gelu_new", Activation::gelu_tanh, Activation::geglu_tanh},
    {"gelu_pytorch_tanh", Activation::gelu_tanh, Activation::geglu_tanh},
    {"gelu_fast", Activation::gelu_tanh, Activation::geglu_tanh},
    {"gelu", Activation::gelu, Activation::geglu},
    {"relu", Activation::relu, {}},
    {"silu", Activation::silu, Activation::swiglu},
    {"swish", Activation::silu, Activation::swiglu},
};

// The values that two specs of one function may differ in.
bool is_part_of_function(std::string_view field) {
  for (const char* other : {"dropout", "attention_dropout", "init", "init_std", "init_residual_scaled", "pad_id"})
    if (field == other) return false;
  return true;
}

}  // namespace

std::span<const HfFamily* const> families() {
  static const HfFamily* const all[] = {&gpt2, &llama,   &mistral, &qwen2, &opt,   &bloom,
                                        &bert, &roberta, &t5,      &bart,  &native};
  return all;
}

const HfFamily& family_named(const std::string& model_type, const std::string& what) {
  std::string known;
  for (const HfFamily* family : families()) {
    if (family->model_type == model_type) return *family;
    known += std::string(known.empty() ? "" : ", ") + family->model_type;
  }
  throw CheckpointError("{}: model_type '{}' is not supported; these are: {}", what, model_type, known);
}

Activation read_activation(const ConfigReader& config, const char* key, const char* if_absent, bool gated) {
  const std::string name = config.text({key}, if_absent);
  for (const ActivationName& a : activation_names)
    if (const auto found = gated ? a.gated : a.plain; found && name == a.name) return *found;
  config.fail(key, "'{}' is not supported here", name);
}

std::string activation_name(Activation activation) {
  for (const ActivationName& a : activation_names)
    if (a.plain == activation || a.gated == activation) return a.name;
  return std::string(name_of(activation));
}

ModelSpec normal_form(ModelSpec s) {
  const ModelSpec plain;
  s.n_kv_heads = s.kv_heads();
  s.head_dim = s.head_width();
  s.d_ff = s.ff_width();
  s.n_decoder_layers = s.family == Family::encoder_decoder ? s.decoder_layers() : 0;
  s.qkv_bias = s.has_qkv_bias();
  s.out_bias = s.has_out_bias();
  if (std::abs(s.attention_scale * std::sqrt(double(s.head_dim)) - 1) < 1e-12) s.attention_scale = 0;
  // Zeros stand for factors that follow from the width.
  const double root = std::sqrt(double(s.d_model));
  if (std::abs(s.logit_scale * root - 1) < 1e-9) s.logit_scale = 0;
  if (std::abs(s.embedding_scale / root - 1) < 1e-9) s.embedding_scale = 0;
  bool same_windows = true;
  for (int64_t i = 1; i < s.n_layers; ++i) same_windows &= s.layer_window(i) == s.layer_window(0);
  if (same_windows) s.window = s.layer_window(0), s.window_layers.clear();
  if (!s.window_layers.empty()) s.window = 0;
  if (s.head == Head::vocabulary)
    s.n_labels = 0;
  else
    s.mlm_head = s.lm_head_bias = false, s.tied_embeddings = true, s.logit_scale = 1;
  if (s.position != Position::learned) s.position_offset = 0;
  if (s.position != Position::relative_bias)
    s.relative_buckets = plain.relative_buckets, s.relative_distance = plain.relative_distance;
  if (s.position != Position::rope)
    s.rope_theta = plain.rope_theta, s.rope_fraction = plain.rope_fraction, s.rope_scaling = {};
  RopeScaling& scaling = s.rope_scaling;
  const RopeScaling none;
  if (scaling.type == RopeScalingKind::none) scaling = none;
  if (scaling.type == RopeScalingKind::linear) scaling.original_max_positions = none.original_max_positions;
  if (scaling.type != RopeScalingKind::llama3)
    scaling.low_freq_factor = none.low_freq_factor, scaling.high_freq_factor = none.high_freq_factor;
  if (scaling.type != RopeScalingKind::yarn)
    scaling.beta_fast = none.beta_fast, scaling.beta_slow = none.beta_slow,
    scaling.attention_factor = none.attention_factor;
  return s;
}

std::vector<std::string> misfits(const HfFamily& family, const ModelSpec& spec) {
  // What the family makes of the spec is found by writing its config.json and reading that back: a list of conditions
  // kept beside the two functions could disagree with them.
  Json config;
  family.write_config(spec, config);
  config["tie_word_embeddings"] = spec.tied_embeddings;
  ModelSpec back;
  try {
    back = normal_form(family.read_config(ConfigReader(config, family.model_type)));
  } catch (const CheckpointError& error) {
    return {error.what()};
  }
  const ModelSpec wanted = normal_form(spec);
  std::vector<std::string> differences;
  for_each_field<ModelSpec>([&](const auto& f) {
    const Json ours = json_fields::encode(wanted.*f.member), theirs = json_fields::encode(back.*f.member);
    if (is_part_of_function(f.name) && f.name != family.decided_by_files && ours != theirs)
      differences.push_back(fmt::format("{} is {}, {} has {}", f.name, ours.dump(), family.model_type, theirs.dump()));
  });
  return differences;
}

const HfFamily& family_of(const ModelSpec& spec) {
  for (const HfFamily* family : families())
    if (misfits(*family, spec).empty()) return *family;
  return native;
}

}  // namespace huggingface

std::string model_type_of(const ModelSpec& spec) { return huggingface::family_of(spec).model_type; }
std::vector<TensorMapping> tensor_mappings(const ModelSpec& spec) { return huggingface::family_of(spec).tensors(spec); }

}  // namespace mixtape
