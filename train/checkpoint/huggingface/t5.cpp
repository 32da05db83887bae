// T5 and T5 v1.1: https://huggingface.co/docs/transformers/model_doc/t5
//
// Whether the output layer is the embedding is for the files to say: transformers 5 writes tie_word_embeddings: true
// even for v1.1, which has an output layer of its own. Whether logits are scaled is said by scale_decoder_outputs, and
// in files of transformers 4 by tie_word_embeddings.
#include <algorithm>

#include "train/checkpoint/huggingface/family.h"

namespace mixtape::huggingface {
namespace {

// "relu", "gated-gelu": the inner activation, which "gelu" means as an approximation where it is gated.
Activation read_feed_forward(const ConfigReader& config) {
  const std::string gated = "gated-", name = config.text({"feed_forward_proj"}, "relu");
  if (!name.starts_with(gated)) return read_activation(config, "feed_forward_proj", "relu", false);
  const std::string inner = name == "gated-gelu" ? "gelu_new" : name.substr(gated.size());
  const ConfigReader reader(Json{{"feed_forward_proj", inner}}, config.what());
  return read_activation(reader, "feed_forward_proj", "", true);
}

std::string feed_forward_name(Activation activation) {
  if (activation == Activation::geglu_tanh) return "gated-gelu";
  return (is_gated(activation) ? "gated-" : "") + activation_name(activation);
}

ModelSpec read_t5(const ConfigReader& config) {
  ModelSpec s;
  s.family = Family::encoder_decoder;
  s.n_layers = config.size({"num_layers"});
  s.n_decoder_layers = config.size({"num_decoder_layers"}, s.n_layers);
  s.d_model = config.size({"d_model"});
  s.n_heads = config.size({"num_heads"});
  s.head_dim = config.size({"d_kv"});
  s.d_ff = config.size({"d_ff"});
  s.vocab_size = config.size({"vocab_size"});
  s.max_positions = config.size({"n_positions"}, 512);  // its positions set no limit; this is what it was trained with
  s.position = Position::relative_bias;
  s.relative_buckets = config.size({"relative_attention_num_buckets"}, 32);
  s.relative_distance = config.size({"relative_attention_max_distance"}, 128);
  s.norm = NormKind::rmsnorm;
  s.norm_eps = config.number("layer_norm_epsilon", 1e-6);
  s.activation = read_feed_forward(config);
  s.bias = false;
  s.tied_embeddings = config.flag("tie_word_embeddings", true);
  s.attention_scale = 1;
  s.logit_scale = config.flag("scale_decoder_outputs", s.tied_embeddings) ? 0 : 1;
  s.dropout = s.attention_dropout = config.number("dropout_rate", 0.1);
  s.init = InitScheme::fan_in;
  s.init_std = config.number("initializer_factor", 1);
  s.init_residual_scaled = false;
  return s;
}

void write_t5(const ModelSpec& s, Json& config) {
  config["is_encoder_decoder"] = true;
  config["num_layers"] = s.n_layers;
  config["num_decoder_layers"] = s.decoder_layers();
  config["d_model"] = s.d_model;
  config["num_heads"] = s.n_heads;
  config["d_kv"] = s.head_width();
  config["d_ff"] = s.ff_width();
  config["vocab_size"] = s.vocab_size;
  config["n_positions"] = s.max_positions;
  config["relative_attention_num_buckets"] = s.relative_buckets;
  config["relative_attention_max_distance"] = s.relative_distance;
  config["layer_norm_epsilon"] = s.norm_eps;
  config["feed_forward_proj"] = feed_forward_name(s.activation);
  config["dense_act_fn"] = activation_name(s.activation);
  config["is_gated_act"] = is_gated(s.activation);
  config["scale_decoder_outputs"] = s.logit_factor() != 1;
  config["dropout_rate"] = s.dropout;
  config["initializer_factor"] = s.init == InitScheme::fan_in ? s.init_std : 1.0;
}

std::vector<TensorMapping> t5_tensors(const ModelSpec& s) {
  MappingList list(s);
  const int64_t q = s.n_heads * s.head_width(), ff = s.ff_width();
  list.whole("shared.weight", "embedding.token");
  for (const char* stack : {"encoder.", "decoder."}) {
    const bool cross = stack == std::string("decoder.");
    list.whole(std::string(stack) + "block.0.layer.0.SelfAttention.relative_attention_bias.weight",
               std::string(stack) + "relative_bias");
    for (int64_t i = 0; i < (cross ? s.decoder_layers() : s.n_layers); ++i) {
      const std::string theirs = fmt::format("{}block.{}.layer.", stack, i),
                        ours = fmt::format("{}layers.{}.", stack, i);
      list.whole(theirs + "0.layer_norm.weight", ours + "norm1.weight");
      list.rows(theirs + "0.SelfAttention.q.weight", ours + "attention.qkv.weight", 0, q);
      list.rows(theirs + "0.SelfAttention.k.weight", ours + "attention.qkv.weight", q, q);
      list.rows(theirs + "0.SelfAttention.v.weight", ours + "attention.qkv.weight", 2 * q, q);
      list.whole(theirs + "0.SelfAttention.o.weight", ours + "attention.out.weight");
      if (cross) {
        list.whole(theirs + "1.layer_norm.weight", ours + "norm_cross.weight");
        list.whole(theirs + "1.EncDecAttention.q.weight", ours + "cross_attention.q.weight");
        list.rows(theirs + "1.EncDecAttention.k.weight", ours + "cross_attention.kv.weight", 0, q);
        list.rows(theirs + "1.EncDecAttention.v.weight", ours + "cross_attention.kv.weight", q, q);
        list.whole(theirs + "1.EncDecAttention.o.weight", ours + "cross_attention.out.weight");
      }
      const std::string last = theirs + (cross ? "2." : "1.");
      list.whole(last + "layer_norm.weight", ours + "norm2.weight");
      if (is_gated(s.activation)) {
        list.rows(last + "DenseReluDense.wi_0.weight", ours + "mlp.up.weight", 0, ff);
        list.rows(last + "DenseReluDense.wi_1.weight", ours + "mlp.up.weight", ff, ff);
      } else {
        list.whole(last + "DenseReluDense.wi.weight", ours + "mlp.up.weight");
      }
      list.whole(last + "DenseReluDense.wo.weight", ours + "mlp.down.weight");
    }
    list.whole(std::string(stack) + "final_layer_norm.weight", std::string(stack) + "final_norm.weight");
  }
  list.whole("lm_head.weight", "lm_head.weight");
  return list.take();
}

// The embedding under its other names, and a table of cross-attention that old files have and nobody reads.
bool is_t5_buffer(std::string_view name) {
  return name.ends_with(".embed_tokens.weight") || name.ends_with("EncDecAttention.relative_attention_bias.weight");
}

std::vector<std::string> other_t5_names(const std::string& name) {
  if (name != "shared.weight") return {};
  return {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight"};
}

void read_t5_files(const SafetensorsModel& files, ModelSpec& spec) {
  const StoredTensor *head = files.find("lm_head.weight"), *shared = files.find("shared.weight");
  spec.tied_embeddings =
      !head || (shared && head->type == shared->type && std::ranges::equal(head->data, shared->data));
}

}  // namespace

const HfFamily t5{"t5",
                  "T5ForConditionalGeneration",
                  "",
                  read_t5,
                  write_t5,
                  t5_tensors,
                  is_t5_buffer,
                  other_t5_names,
                  read_t5_files,
                  "tied_embeddings"};

}  // namespace mixtape::huggingface
