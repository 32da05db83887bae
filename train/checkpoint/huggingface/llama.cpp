// LLaMA, Mistral and Qwen 2: one function, three names. https://huggingface.co/docs/transformers/model_doc/llama
//
// They differ in what config.json can say: LLaMA has biases in attention (all or none) and in the MLP, Mistral has a
// sliding window, Qwen 2 has biases of queries, keys and values, and may have a window in some layers.
#include <algorithm>

#include "train/checkpoint/huggingface/rope.h"

namespace mixtape::huggingface {
namespace {

ModelSpec read_any_llama(const ConfigReader& config, int64_t n_kv_heads_if_absent = 0) {
  ModelSpec s;
  s.n_layers = config.size({"num_hidden_layers"});
  s.d_model = config.size({"hidden_size"});
  s.n_heads = config.size({"num_attention_heads"});
  s.n_kv_heads = config.mentions("num_key_value_heads") || !n_kv_heads_if_absent
                     ? config.size({"num_key_value_heads"}, s.n_heads)
                     : n_kv_heads_if_absent;
  s.head_dim = config.size({"head_dim"}, std::max<int64_t>(s.d_model / s.n_heads, 1));
  s.d_ff = config.size({"intermediate_size"});
  s.vocab_size = config.size({"vocab_size"});
  s.max_positions = config.size({"max_position_embeddings"});
  read_rope(config, s);
  s.norm = NormKind::rmsnorm;
  s.norm_eps = config.number("rms_norm_eps", 1e-6);
  s.activation = read_activation(config, "hidden_act", "silu", true);
  s.bias = false;
  s.tied_embeddings = config.flag("tie_word_embeddings", false);
  s.pad_id = config.id("pad_token_id").value_or(-1);
  s.attention_dropout = config.number("attention_dropout", 0);
  s.init_std = config.number("initializer_range", 0.02);
  return s;
}

ModelSpec read_llama(const ConfigReader& config) {
  ModelSpec s = read_any_llama(config);
  s.bias = config.flag("mlp_bias", false);
  s.qkv_bias = s.out_bias = config.flag("attention_bias", false);
  return s;
}

ModelSpec read_mistral(const ConfigReader& config) {
  ModelSpec s = read_any_llama(config, 8);
  s.window = config.size({"sliding_window"}, config.mentions("sliding_window") ? 0 : 4096);  // null means none
  return s;
}

ModelSpec read_qwen2(const ConfigReader& config) {
  ModelSpec s = read_any_llama(config, 32);
  s.qkv_bias = true;
  s.out_bias = false;
  if (!config.flag("use_sliding_window", false)) return s;
  // Which layers have the window: in version 5 by name, before that those from max_window_layers on.
  const int64_t window = config.size({"sliding_window"}, 4096);
  const auto types = config.texts("layer_types");
  if (!types.empty() && int64_t(types.size()) != s.n_layers)
    config.fail("layer_types", "{} names for {} layers", types.size(), s.n_layers);
  const double first = config.number("max_window_layers", 28);
  for (int64_t i = 0; i < s.n_layers; ++i) {
    const bool slides = types.empty() ? double(i) >= first : types[size_t(i)] == "sliding_attention";
    s.window_layers.push_back(slides ? window : 0);
  }
  return s;
}

void write_any_llama(const ModelSpec& s, Json& config) {
  config["num_hidden_layers"] = s.n_layers;
  config["hidden_size"] = s.d_model;
  config["num_attention_heads"] = s.n_heads;
  config["num_key_value_heads"] = s.kv_heads();
  config["head_dim"] = s.head_width();
  config["intermediate_size"] = s.ff_width();
  config["vocab_size"] = s.vocab_size;
  config["max_position_embeddings"] = s.max_positions;
  write_rope(s, config);
  config["rms_norm_eps"] = s.norm_eps;
  config["hidden_act"] = activation_name(s.activation);
  config["attention_dropout"] = s.attention_dropout;
  config["initializer_range"] = s.init_std;
}

void write_llama(const ModelSpec& s, Json& config) {
  write_any_llama(s, config);
  config["attention_bias"] = s.has_qkv_bias();
  config["mlp_bias"] = s.bias;
  config["pretraining_tp"] = 1;
}

void write_mistral(const ModelSpec& s, Json& config) {
  write_any_llama(s, config);
  config["sliding_window"] = s.window ? Json(s.window) : Json();
}

void write_qwen2(const ModelSpec& s, Json& config) {
  write_any_llama(s, config);
  int64_t window = 0, first = s.n_layers;
  Json types = Json::array();
  for (int64_t i = 0; i < s.n_layers; ++i) {
    const int64_t here = s.layer_window(i);
    if (here) window = here, first = std::min(first, i);
    types.push_back(here ? "sliding_attention" : "full_attention");
  }
  config["use_sliding_window"] = window > 0;
  config["sliding_window"] = window ? Json(window) : Json();
  config["max_window_layers"] = first;
  config["layer_types"] = types;
}

std::vector<TensorMapping> llama_tensors(const ModelSpec& s) {
  MappingList list(s);
  const int64_t q = s.n_heads * s.head_width(), kv = s.kv_heads() * s.head_width(), ff = s.ff_width();
  list.whole("model.embed_tokens.weight", "embedding.token");
  for (int64_t i = 0; i < s.n_layers; ++i) {
    const std::string theirs = fmt::format("model.layers.{}.", i), ours = fmt::format("layers.{}.", i);
    list.whole(theirs + "input_layernorm.weight", ours + "norm1.weight");
    for (const char* kind : {".weight", ".bias"}) {
      list.rows(theirs + "self_attn.q_proj" + kind, ours + "attention.qkv" + kind, 0, q);
      list.rows(theirs + "self_attn.k_proj" + kind, ours + "attention.qkv" + kind, q, kv);
      list.rows(theirs + "self_attn.v_proj" + kind, ours + "attention.qkv" + kind, q + kv, kv);
      list.whole(theirs + "self_attn.o_proj" + kind, ours + "attention.out" + kind);
      list.rows(theirs + "mlp.gate_proj" + kind, ours + "mlp.up" + kind, 0, ff);
      list.rows(theirs + "mlp.up_proj" + kind, ours + "mlp.up" + kind, ff, ff);
      list.whole(theirs + "mlp.down_proj" + kind, ours + "mlp.down" + kind);
    }
    list.whole(theirs + "post_attention_layernorm.weight", ours + "norm2.weight");
  }
  list.whole("model.norm.weight", "final_norm.weight");
  list.whole("lm_head.weight", "lm_head.weight");
  return list.take();
}

// Rotary frequencies, which old versions stored.
bool is_llama_buffer(std::string_view name) { return name.ends_with(".rotary_emb.inv_freq"); }

}  // namespace

const HfFamily llama{"llama", "LlamaForCausalLM", "model.", read_llama, write_llama, llama_tensors, is_llama_buffer};
const HfFamily mistral{"mistral",     "MistralForCausalLM", "model.",       read_mistral,
                       write_mistral, llama_tensors,        is_llama_buffer};
const HfFamily qwen2{"qwen2", "Qwen2ForCausalLM", "model.", read_qwen2, write_qwen2, llama_tensors, is_llama_buffer};

}  // namespace mixtape::huggingface
