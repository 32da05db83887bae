// GPT-2: https://huggingface.co/docs/transformers/model_doc/gpt2. Linear layers are stored [in, out] ("Conv1D").
#include "train/checkpoint/huggingface/family.h"

namespace mixtape::huggingface {
namespace {

ModelSpec read_gpt2(const ConfigReader& config) {
  config.only("scale_attn_by_inverse_layer_idx", false);
  config.only("add_cross_attention", false);
  ModelSpec s;
  s.n_layers = config.size({"n_layer"});
  s.d_model = config.size({"n_embd"});
  s.n_heads = config.size({"n_head"});
  s.d_ff = config.size({"n_inner"}, 4 * s.d_model);
  s.vocab_size = config.size({"vocab_size"});
  s.max_positions = config.size({"n_positions", "n_ctx"});
  s.position = Position::learned;
  s.norm_eps = config.number("layer_norm_epsilon", 1e-5);
  s.activation = read_activation(config, "activation_function", "gelu_new", false);
  s.attention_scale = config.flag("scale_attn_weights", true) ? 0 : 1;
  s.tied_embeddings = config.flag("tie_word_embeddings", true);
  s.dropout = config.number("resid_pdrop", 0.1);
  s.attention_dropout = config.number("attn_pdrop", 0.1);
  s.init_std = config.number("initializer_range", 0.02);
  return s;
}

void write_gpt2(const ModelSpec& s, Json& config) {
  config["n_layer"] = s.n_layers;
  config["n_embd"] = s.d_model;
  config["n_head"] = s.n_heads;
  config["n_inner"] = s.ff_width() == 4 * s.d_model ? Json() : Json(s.ff_width());
  config["vocab_size"] = s.vocab_size;
  config["n_positions"] = s.max_positions;
  config["n_ctx"] = s.max_positions;
  config["layer_norm_epsilon"] = s.norm_eps;
  config["activation_function"] = activation_name(s.activation);
  config["scale_attn_weights"] = s.attention_scale != 1;
  config["resid_pdrop"] = s.dropout;
  config["embd_pdrop"] = s.dropout;
  config["attn_pdrop"] = s.attention_dropout;
  config["initializer_range"] = s.init_std;
}

std::vector<TensorMapping> gpt2_tensors(const ModelSpec& s) {
  MappingList list(s);
  list.whole("transformer.wte.weight", "embedding.token");
  list.whole("transformer.wpe.weight", "embedding.position");
  for (int64_t i = 0; i < s.n_layers; ++i) {
    const std::string theirs = fmt::format("transformer.h.{}.", i), ours = fmt::format("layers.{}.", i);
    const auto linear = [&](const char* name, const char* parameter) {
      list.transposed(theirs + name + ".weight", ours + parameter + ".weight");
      list.whole(theirs + name + ".bias", ours + parameter + ".bias");
    };
    const auto norm = [&](const char* name, const char* parameter) {
      list.whole(theirs + name + ".weight", ours + parameter + ".weight");
      list.whole(theirs + name + ".bias", ours + parameter + ".bias");
    };
    norm("ln_1", "norm1");
    linear("attn.c_attn", "attention.qkv");
    linear("attn.c_proj", "attention.out");
    norm("ln_2", "norm2");
    linear("mlp.c_fc", "mlp.up");
    linear("mlp.c_proj", "mlp.down");
  }
  list.whole("transformer.ln_f.weight", "final_norm.weight");
  list.whole("transformer.ln_f.bias", "final_norm.bias");
  list.whole("lm_head.weight", "lm_head.weight");
  return list.take();
}

// The causal mask, which old versions stored.
bool is_gpt2_buffer(std::string_view name) {
  return name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias");
}

}  // namespace

const HfFamily gpt2{"gpt2", "GPT2LMHeadModel", "transformer.", read_gpt2, write_gpt2, gpt2_tensors, is_gpt2_buffer};

}  // namespace mixtape::huggingface
