#include "train/checkpoint/huggingface/rope.h"

namespace mixtape::huggingface {
namespace {

RopeScaling read_scaling(const ConfigReader& config, const ModelSpec& spec) {
  RopeScaling scaling;
  const std::string type = config.text({"rope_type", "type"}, "default");
  if (type == "default") return scaling;
  const auto kind = parse_enum<RopeScalingKind>(type);
  if (!kind || *kind == RopeScalingKind::none)
    config.fail("rope_type", "'{}' is not supported; linear, dynamic, yarn and llama3 are", type);
  scaling.type = *kind;
  scaling.factor = config.number("factor", 1);
  scaling.original_max_positions = config.size({"original_max_position_embeddings"}, spec.max_positions);
  if (scaling.type == RopeScalingKind::llama3) {
    scaling.low_freq_factor = config.number("low_freq_factor", 1);
    scaling.high_freq_factor = config.number("high_freq_factor", 4);
  }
  if (scaling.type == RopeScalingKind::yarn) {
    for (const char* key : {"mscale", "mscale_all_dim"})
      if (config.has(key)) config.fail(key, "DeepSeek's form of yarn is not supported");
    config.only("truncate", true);
    scaling.beta_fast = config.number("beta_fast", 32);
    scaling.beta_slow = config.number("beta_slow", 1);
    scaling.attention_factor = config.number("attention_factor", 0);
  }
  return scaling;
}

Json scaling_json(const RopeScaling& scaling) {
  Json json;
  json["rope_type"] = name_of(scaling.type);
  json["factor"] = scaling.factor;
  if (scaling.type != RopeScalingKind::linear)
    json["original_max_position_embeddings"] = scaling.original_max_positions;
  if (scaling.type == RopeScalingKind::llama3) {
    json["low_freq_factor"] = scaling.low_freq_factor;
    json["high_freq_factor"] = scaling.high_freq_factor;
  }
  if (scaling.type == RopeScalingKind::yarn) {
    json["beta_fast"] = scaling.beta_fast;
    json["beta_slow"] = scaling.beta_slow;
    if (scaling.attention_factor != 0) json["attention_factor"] = scaling.attention_factor;
  }
  return json;
}

}  // namespace

void read_rope(const ConfigReader& config, ModelSpec& spec) {
  spec.position = Position::rope;
  const bool version_5 = config.has("rope_parameters");
  const ConfigReader parameters = version_5 ? config.object("rope_parameters") : config;
  spec.rope_theta = parameters.number("rope_theta", config.number("rope_theta", 10000));
  spec.rope_fraction = parameters.number("partial_rotary_factor", config.number("partial_rotary_factor", 1));
  if (version_5)
    spec.rope_scaling = read_scaling(parameters, spec);
  else if (config.has("rope_scaling"))
    spec.rope_scaling = read_scaling(config.object("rope_scaling"), spec);
}

void write_rope(const ModelSpec& spec, Json& config) {
  const bool scaled = spec.rope_scaling.type != RopeScalingKind::none;
  Json parameters = scaled ? scaling_json(spec.rope_scaling) : Json{{"rope_type", "default"}};
  config["rope_scaling"] = scaled ? parameters : Json();
  config["rope_theta"] = spec.rope_theta;
  parameters["rope_theta"] = spec.rope_theta;
  if (spec.rope_fraction != 1) {
    parameters["partial_rotary_factor"] = spec.rope_fraction;
    config["partial_rotary_factor"] = spec.rope_fraction;
  }
  config["rope_parameters"] = parameters;
}

}  // namespace mixtape::huggingface
