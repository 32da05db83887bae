// BART: https://huggingface.co/docs/transformers/model_doc/bart. Position tables have two rows more than positions.
#include <algorithm>

#include "train/checkpoint/huggingface/family.h"

namespace mixtape::huggingface {
namespace {

// A size that both stacks have, under two keys.
int64_t same_size(const ConfigReader& config, const char* encoder, const char* decoder) {
  const int64_t size = config.size({encoder});
  if (config.size({decoder}) != size)
    config.fail(decoder, "{}, but {} is {}: stacks of two widths are not supported", config.size({decoder}), encoder,
                size);
  return size;
}

ModelSpec read_bart(const ConfigReader& config) {
  // Of checkpoints that share the name: mBART's and Blenderbot's order of norms.
  config.only("normalize_before", false);
  config.only("add_final_layer_norm", false);
  config.only("normalize_embedding", true);
  config.only("static_position_embeddings", false);
  ModelSpec s;
  s.family = Family::encoder_decoder;
  s.n_layers = config.size({"encoder_layers"});
  s.n_decoder_layers = config.size({"decoder_layers"});
  s.d_model = config.size({"d_model"});
  s.n_heads = same_size(config, "encoder_attention_heads", "decoder_attention_heads");
  s.d_ff = same_size(config, "encoder_ffn_dim", "decoder_ffn_dim");
  s.vocab_size = config.size({"vocab_size"});
  s.max_positions = config.size({"max_position_embeddings"});
  s.position = Position::learned;
  s.position_offset = 2;
  s.norm_placement = NormPlacement::post;
  s.final_norm = false;
  s.embedding_norm = true;
  s.activation = read_activation(config, "activation_function", "gelu", false);
  s.tied_embeddings = config.flag("tie_word_embeddings", true);
  s.embedding_scale = config.flag("scale_embedding", false) ? 0 : 1;
  s.pad_id = config.id("pad_token_id").value_or(1);
  s.dropout = config.number("dropout", 0.1);
  s.attention_dropout = config.number("attention_dropout", 0);
  s.init_std = config.number("init_std", 0.02);
  s.init_residual_scaled = false;
  return s;
}

void write_bart(const ModelSpec& s, Json& config) {
  config["is_encoder_decoder"] = true;
  config["encoder_layers"] = s.n_layers;
  config["decoder_layers"] = s.decoder_layers();
  config["num_hidden_layers"] = s.n_layers;
  config["d_model"] = s.d_model;
  config["encoder_attention_heads"] = config["decoder_attention_heads"] = s.n_heads;
  config["encoder_ffn_dim"] = config["decoder_ffn_dim"] = s.ff_width();
  config["vocab_size"] = s.vocab_size;
  config["max_position_embeddings"] = s.max_positions;
  config["activation_function"] = activation_name(s.activation);
  config["scale_embedding"] = s.embedding_factor() != 1;
  config["normalize_before"] = s.norm_placement == NormPlacement::pre;
  config["add_final_layer_norm"] = s.final_norm;
  config["normalize_embedding"] = s.embedding_norm;
  config["dropout"] = s.dropout;
  config["attention_dropout"] = s.attention_dropout;
  config["activation_dropout"] = 0.0;
  config["encoder_layerdrop"] = config["decoder_layerdrop"] = 0.0;
  config["init_std"] = s.init_std;
  config["forced_eos_token_id"] = Json();  // else transformers forces it at the length limit
}

std::vector<TensorMapping> bart_tensors(const ModelSpec& s) {
  MappingList list(s);
  const int64_t d = s.n_heads * s.head_width();
  list.whole("model.shared.weight", "embedding.token");
  for (const std::string stack : {"encoder.", "decoder."}) {
    list.whole("model." + stack + "embed_positions.weight", stack + "embedding.position");
    for (const char* kind : {".weight", ".bias"}) {
      list.whole("model." + stack + "layernorm_embedding" + kind, stack + "embedding.norm" + kind);
      for (int64_t i = 0; i < (stack == "decoder." ? s.decoder_layers() : s.n_layers); ++i) {
        const std::string ours = fmt::format("{}layers.{}.", stack, i), theirs = "model." + ours;
        list.rows(theirs + "self_attn.q_proj" + kind, ours + "attention.qkv" + kind, 0, d);
        list.rows(theirs + "self_attn.k_proj" + kind, ours + "attention.qkv" + kind, d, d);
        list.rows(theirs + "self_attn.v_proj" + kind, ours + "attention.qkv" + kind, 2 * d, d);
        list.whole(theirs + "self_attn.out_proj" + kind, ours + "attention.out" + kind);
        list.whole(theirs + "self_attn_layer_norm" + kind, ours + "norm1" + kind);
        // The decoder's; the encoder has no such parameters, and what a spec does not have is left out.
        list.whole(theirs + "encoder_attn.q_proj" + kind, ours + "cross_attention.q" + kind);
        list.rows(theirs + "encoder_attn.k_proj" + kind, ours + "cross_attention.kv" + kind, 0, d);
        list.rows(theirs + "encoder_attn.v_proj" + kind, ours + "cross_attention.kv" + kind, d, d);
        list.whole(theirs + "encoder_attn.out_proj" + kind, ours + "cross_attention.out" + kind);
        list.whole(theirs + "encoder_attn_layer_norm" + kind, ours + "norm_cross" + kind);
        list.whole(theirs + "fc1" + kind, ours + "mlp.up" + kind);
        list.whole(theirs + "fc2" + kind, ours + "mlp.down" + kind);
        list.whole(theirs + "final_layer_norm" + kind, ours + "norm2" + kind);
      }
    }
  }
  list.whole("lm_head.weight", "lm_head.weight");
  list.as_row("final_logits_bias", "lm_head.bias", s.vocab_size);
  return list.take();
}

bool is_bart_buffer(std::string_view name) { return name.ends_with(".embed_tokens.weight"); }

std::vector<std::string> other_bart_names(const std::string& name) {
  if (name != "model.shared.weight") return {};
  return {"model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight"};
}

// A buffer of zeros unless somebody has given the output layer a bias.
void read_bart_files(const SafetensorsModel& files, ModelSpec& spec) {
  const StoredTensor* bias = files.find("final_logits_bias");
  spec.lm_head_bias = bias && std::ranges::any_of(bias->data, [](std::byte b) { return b != std::byte{0}; });
}

}  // namespace

const HfFamily bart{"bart",          "BartForConditionalGeneration",
                    "model.",        read_bart,
                    write_bart,      bart_tensors,
                    is_bart_buffer,  other_bart_names,
                    read_bart_files, "lm_head_bias"};

}  // namespace mixtape::huggingface
