// BERT and RoBERTa, for masked language modelling and for labels of sequences or tokens:
// https://huggingface.co/docs/transformers/model_doc/bert
//
// They differ in positions (RoBERTa's count from the row after the padding token's), in the names of the heads, and in
// what config.json leaves to defaults. BERT's pooler belongs to the model and is in its files whatever they are for;
// only labels of sequences use it. RoBERTa's head has a layer of its own in that place. The next-sentence head of
// published files is not part of it.
#include "train/checkpoint/huggingface/family.h"

namespace mixtape::huggingface {
namespace {

ModelSpec read_any_bert(const ConfigReader& config) {
  config.only("is_decoder", false);
  config.only("add_cross_attention", false);
  if (const std::string kind = config.text({"position_embedding_type"}, "absolute"); kind != "absolute")
    config.fail("position_embedding_type", "'{}' is not supported", kind);
  ModelSpec s;
  s.family = Family::encoder;
  s.n_layers = config.size({"num_hidden_layers"});
  s.d_model = config.size({"hidden_size"});
  s.n_heads = config.size({"num_attention_heads"});
  s.d_ff = config.size({"intermediate_size"});
  s.vocab_size = config.size({"vocab_size"});
  s.max_positions = config.size({"max_position_embeddings"});
  s.position = Position::learned;
  s.token_types = config.size({"type_vocab_size"}, 2);
  s.norm_placement = NormPlacement::post;
  s.norm_eps = config.number("layer_norm_eps", 1e-12);
  s.final_norm = false;
  s.embedding_norm = true;
  s.activation = read_activation(config, "hidden_act", "gelu", false);
  s.tied_embeddings = config.flag("tie_word_embeddings", true);
  s.lm_head_bias = true;
  s.mlm_head = true;
  s.dropout = config.number("hidden_dropout_prob", 0.1);
  s.attention_dropout = config.number("attention_probs_dropout_prob", 0.1);
  s.init_std = config.number("initializer_range", 0.02);
  s.init_residual_scaled = false;
  read_head(config, s);
  return s;
}

ModelSpec read_bert(const ConfigReader& config) {
  ModelSpec s = read_any_bert(config);
  s.pad_id = config.id("pad_token_id").value_or(0);
  return s;
}

ModelSpec read_roberta(const ConfigReader& config) {
  ModelSpec s = read_any_bert(config);
  s.pad_id = config.id("pad_token_id").value_or(1);
  s.position_offset = s.pad_id + 1;
  s.max_positions -= s.position_offset;
  if (s.max_positions < 1)
    config.fail("max_position_embeddings", "leaves no position after the {} that padding takes", s.position_offset);
  // Its head has this activation whatever hidden_act says.
  if (s.activation != Activation::gelu) config.fail("hidden_act", "only gelu is supported for roberta");
  return s;
}

void write_any_bert(const ModelSpec& s, Json& config) {
  config["num_hidden_layers"] = s.n_layers;
  config["hidden_size"] = s.d_model;
  config["num_attention_heads"] = s.n_heads;
  config["intermediate_size"] = s.ff_width();
  config["vocab_size"] = s.vocab_size;
  config["max_position_embeddings"] = s.max_positions;
  config["position_embedding_type"] = "absolute";
  config["type_vocab_size"] = std::max<int64_t>(s.token_types, 1);
  config["layer_norm_eps"] = s.norm_eps;
  config["hidden_act"] = activation_name(s.activation);
  config["hidden_dropout_prob"] = s.dropout;
  config["attention_probs_dropout_prob"] = s.attention_dropout;
  config["initializer_range"] = s.init_std;
  config["is_decoder"] = false;
  config["add_cross_attention"] = false;
}

void write_bert(const ModelSpec& s, Json& config) {
  write_any_bert(s, config);
  write_head("BertForMaskedLM", s, config);
}

void write_roberta(const ModelSpec& s, Json& config) {
  write_any_bert(s, config);
  write_head("RobertaForMaskedLM", s, config);
  // Positions start behind this token's row, so it is part of the function and not the tokenizer's to say.
  const int64_t pad = s.pad_id >= 0 ? s.pad_id : s.position_offset - 1;
  config["pad_token_id"] = pad;
  config["max_position_embeddings"] = s.max_positions + pad + 1;
}

// All but the head. `model` is "bert." or "roberta.".
void encoder_tensors(MappingList& list, const ModelSpec& s, const std::string& model) {
  const int64_t d = s.n_heads * s.head_width();
  list.whole(model + "embeddings.word_embeddings.weight", "embedding.token");
  list.whole(model + "embeddings.position_embeddings.weight", "embedding.position");
  list.whole(model + "embeddings.token_type_embeddings.weight", "embedding.type");
  for (const char* kind : {".weight", ".bias"}) {
    list.whole(model + "embeddings.LayerNorm" + kind, std::string("embedding.norm") + kind);
    for (int64_t i = 0; i < s.n_layers; ++i) {
      const std::string theirs = fmt::format("{}encoder.layer.{}.", model, i), ours = fmt::format("layers.{}.", i);
      list.rows(theirs + "attention.self.query" + kind, ours + "attention.qkv" + kind, 0, d);
      list.rows(theirs + "attention.self.key" + kind, ours + "attention.qkv" + kind, d, d);
      list.rows(theirs + "attention.self.value" + kind, ours + "attention.qkv" + kind, 2 * d, d);
      list.whole(theirs + "attention.output.dense" + kind, ours + "attention.out" + kind);
      list.whole(theirs + "attention.output.LayerNorm" + kind, ours + "norm1" + kind);
      list.whole(theirs + "intermediate.dense" + kind, ours + "mlp.up" + kind);
      list.whole(theirs + "output.dense" + kind, ours + "mlp.down" + kind);
      list.whole(theirs + "output.LayerNorm" + kind, ours + "norm2" + kind);
    }
  }
}

void head_tensors(MappingList& list, const std::string& dense, const std::string& norm) {
  for (const char* kind : {".weight", ".bias"}) {
    list.whole(dense + kind, std::string("mlm_head.dense") + kind);
    list.whole(norm + kind, std::string("mlm_head.norm") + kind);
  }
}

std::vector<TensorMapping> bert_tensors(const ModelSpec& s) {
  MappingList list(s);
  encoder_tensors(list, s, "bert.");
  head_tensors(list, "cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm");
  list.whole("cls.predictions.bias", "lm_head.bias");
  list.whole("cls.predictions.decoder.weight", "lm_head.weight");
  for (const char* kind : {".weight", ".bias"}) {
    list.whole(std::string("bert.pooler.dense") + kind, std::string("pooler.dense") + kind);
    list.whole(std::string("classifier") + kind, std::string("classifier") + kind);
  }
  return list.take();
}

std::vector<TensorMapping> roberta_tensors(const ModelSpec& s) {
  MappingList list(s);
  encoder_tensors(list, s, "roberta.");
  head_tensors(list, "lm_head.dense", "lm_head.layer_norm");
  list.whole("lm_head.bias", "lm_head.bias");
  list.whole("lm_head.decoder.weight", "lm_head.weight");
  const std::string output = s.head == Head::sequence_labels ? "classifier.out_proj" : "classifier";
  for (const char* kind : {".weight", ".bias"}) {
    list.whole(std::string("classifier.dense") + kind, std::string("pooler.dense") + kind);
    list.whole(output + kind, std::string("classifier") + kind);
  }
  return list.take();
}

// The order of positions, the output layer where it is tied, and heads for other tasks.
bool is_bert_buffer(std::string_view name) {
  for (const char* part : {"embeddings.position_ids", "pooler.", "cls.seq_relationship.", "cls.predictions.decoder.",
                           "lm_head.decoder.", "embeddings.token_type_ids"})
    if (name.find(part) != std::string_view::npos) return true;
  return false;
}

// Norms as converted from TensorFlow, and the output bias where it was saved with its layer.
std::vector<std::string> other_bert_names(const std::string& name) {
  std::vector<std::string> names;
  if (name.ends_with("LayerNorm.weight")) names.push_back(name.substr(0, name.size() - 6) + "gamma");
  if (name.ends_with("LayerNorm.bias")) names.push_back(name.substr(0, name.size() - 4) + "beta");
  if (name == "cls.predictions.bias") names.push_back("cls.predictions.decoder.bias");
  if (name == "lm_head.bias") names.push_back("lm_head.decoder.bias");
  return names;
}

}  // namespace

const HfFamily bert{"bert",     "BertForMaskedLM", "bert.",        read_bert,
                    write_bert, bert_tensors,      is_bert_buffer, other_bert_names};
const HfFamily roberta{"roberta",     "RobertaForMaskedLM", "roberta.",     read_roberta,
                       write_roberta, roberta_tensors,      is_bert_buffer, other_bert_names};

}  // namespace mixtape::huggingface
