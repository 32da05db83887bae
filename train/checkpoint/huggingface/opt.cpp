// OPT: https://huggingface.co/docs/transformers/model_doc/opt. The position table has two rows more than positions.
#include "train/checkpoint/huggingface/family.h"

namespace mixtape::huggingface {
namespace {

ModelSpec read_opt(const ConfigReader& config) {
  config.only("enable_bias", true);
  config.only("layer_norm_elementwise_affine", true);
  config.only("_remove_final_layer_norm", false);
  ModelSpec s;
  s.n_layers = config.size({"num_hidden_layers"});
  s.d_model = config.size({"hidden_size"});
  s.n_heads = config.size({"num_attention_heads"});
  s.d_ff = config.size({"ffn_dim"});
  s.vocab_size = config.size({"vocab_size"});
  s.max_positions = config.size({"max_position_embeddings"});
  s.position = Position::learned;
  s.position_offset = 2;
  if (config.size({"word_embed_proj_dim"}, s.d_model) != s.d_model)
    config.fail("word_embed_proj_dim", "embeddings of another width than the model (OPT-350m's) are not supported");
  const bool pre = config.flag("do_layer_norm_before", true);
  s.norm_placement = pre ? NormPlacement::pre : NormPlacement::post;
  s.final_norm = pre;
  s.activation = read_activation(config, "activation_function", "relu", false);
  s.tied_embeddings = config.flag("tie_word_embeddings", true);
  s.pad_id = config.id("pad_token_id").value_or(-1);
  s.dropout = config.number("dropout", 0.1);
  s.attention_dropout = config.number("attention_dropout", 0);
  s.init_std = config.number("init_std", 0.02);
  return s;
}

void write_opt(const ModelSpec& s, Json& config) {
  config["num_hidden_layers"] = s.n_layers;
  config["hidden_size"] = s.d_model;
  config["word_embed_proj_dim"] = s.d_model;
  config["num_attention_heads"] = s.n_heads;
  config["ffn_dim"] = s.ff_width();
  config["vocab_size"] = s.vocab_size;
  config["max_position_embeddings"] = s.max_positions;
  config["do_layer_norm_before"] = s.norm_placement == NormPlacement::pre;
  config["_remove_final_layer_norm"] = false;
  config["enable_bias"] = true;
  config["layer_norm_elementwise_affine"] = true;
  config["activation_function"] = activation_name(s.activation);
  config["dropout"] = s.dropout;
  config["attention_dropout"] = s.attention_dropout;
  config["layerdrop"] = 0.0;
  config["init_std"] = s.init_std;
}

std::vector<TensorMapping> opt_tensors(const ModelSpec& s) {
  MappingList list(s);
  const int64_t d = s.n_heads * s.head_width();
  const std::string decoder = "model.decoder.";
  list.whole(decoder + "embed_tokens.weight", "embedding.token");
  list.whole(decoder + "embed_positions.weight", "embedding.position");
  for (int64_t i = 0; i < s.n_layers; ++i) {
    const std::string theirs = fmt::format("{}layers.{}.", decoder, i), ours = fmt::format("layers.{}.", i);
    for (const char* kind : {".weight", ".bias"}) {
      list.rows(theirs + "self_attn.q_proj" + kind, ours + "attention.qkv" + kind, 0, d);
      list.rows(theirs + "self_attn.k_proj" + kind, ours + "attention.qkv" + kind, d, d);
      list.rows(theirs + "self_attn.v_proj" + kind, ours + "attention.qkv" + kind, 2 * d, d);
      list.whole(theirs + "self_attn.out_proj" + kind, ours + "attention.out" + kind);
      list.whole(theirs + "self_attn_layer_norm" + kind, ours + "norm1" + kind);
      list.whole(theirs + "fc1" + kind, ours + "mlp.up" + kind);
      list.whole(theirs + "fc2" + kind, ours + "mlp.down" + kind);
      list.whole(theirs + "final_layer_norm" + kind, ours + "norm2" + kind);
    }
  }
  list.whole(decoder + "final_layer_norm.weight", "final_norm.weight");
  list.whole(decoder + "final_layer_norm.bias", "final_norm.bias");
  list.whole("lm_head.weight", "lm_head.weight");
  return list.take();
}

bool is_opt_buffer(std::string_view) { return false; }

}  // namespace

const HfFamily opt{"opt", "OPTForCausalLM", "model.", read_opt, write_opt, opt_tensors, is_opt_buffer};

}  // namespace mixtape::huggingface
