// BLOOM: https://huggingface.co/docs/transformers/model_doc/bloom. Query, key and value rows go head by head.
#include "train/checkpoint/huggingface/family.h"

namespace mixtape::huggingface {
namespace {

ModelSpec read_bloom(const ConfigReader& config) {
  config.only("apply_residual_connection_post_layernorm", false);
  ModelSpec s;
  s.n_layers = config.size({"n_layer", "num_hidden_layers"});
  s.d_model = config.size({"hidden_size", "n_embed"});
  s.n_heads = config.size({"n_head", "num_attention_heads"});
  s.vocab_size = config.size({"vocab_size"});
  s.max_positions = config.size({"seq_length"}, 2048);  // ALiBi sets no limit; this is what it was trained with
  s.position = Position::alibi;
  s.norm_eps = config.number("layer_norm_epsilon", 1e-5);
  s.embedding_norm = true;
  s.activation = Activation::gelu_tanh;
  s.tied_embeddings = config.flag("tie_word_embeddings", true);
  s.dropout = config.number("hidden_dropout", 0);
  s.attention_dropout = config.number("attention_dropout", 0);
  s.init_std = config.number("initializer_range", 0.02);
  return s;
}

void write_bloom(const ModelSpec& s, Json& config) {
  config["n_layer"] = s.n_layers;
  config["hidden_size"] = s.d_model;
  config["n_head"] = s.n_heads;
  config["vocab_size"] = s.vocab_size;
  config["seq_length"] = s.max_positions;
  config["layer_norm_epsilon"] = s.norm_eps;
  config["apply_residual_connection_post_layernorm"] = false;
  config["hidden_dropout"] = s.dropout;
  config["attention_dropout"] = s.attention_dropout;
  config["initializer_range"] = s.init_std;
  config["pretraining_tp"] = 1;
  config["slow_but_exact"] = false;
}

std::vector<TensorMapping> bloom_tensors(const ModelSpec& s) {
  MappingList list(s);
  list.whole("transformer.word_embeddings.weight", "embedding.token");
  list.whole("transformer.word_embeddings_layernorm.weight", "embedding.norm.weight");
  list.whole("transformer.word_embeddings_layernorm.bias", "embedding.norm.bias");
  for (int64_t i = 0; i < s.n_layers; ++i) {
    const std::string theirs = fmt::format("transformer.h.{}.", i), ours = fmt::format("layers.{}.", i);
    for (const char* kind : {".weight", ".bias"}) {
      list.whole(theirs + "input_layernorm" + kind, ours + "norm1" + kind);
      list.by_head(theirs + "self_attention.query_key_value" + kind, ours + "attention.qkv" + kind, s.n_heads);
      list.whole(theirs + "self_attention.dense" + kind, ours + "attention.out" + kind);
      list.whole(theirs + "post_attention_layernorm" + kind, ours + "norm2" + kind);
      list.whole(theirs + "mlp.dense_h_to_4h" + kind, ours + "mlp.up" + kind);
      list.whole(theirs + "mlp.dense_4h_to_h" + kind, ours + "mlp.down" + kind);
    }
  }
  list.whole("transformer.ln_f.weight", "final_norm.weight");
  list.whole("transformer.ln_f.bias", "final_norm.bias");
  list.whole("lm_head.weight", "lm_head.weight");
  return list.take();
}

bool is_bloom_buffer(std::string_view) { return false; }

}  // namespace

const HfFamily bloom{"bloom",     "BloomForCausalLM", "transformer.", read_bloom,
                     write_bloom, bloom_tensors,      is_bloom_buffer};

}  // namespace mixtape::huggingface
