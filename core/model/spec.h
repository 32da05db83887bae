// The axes along which transformers differ: everything the model code knows about an architecture.
//
// GPT-2/3, OPT, BLOOM, LLaMA, Jurassic, Chinchilla, BloombergGPT, BERT, RoBERTa, T5, BART and the original
// encoder-decoder are points in this space. A preset (configs/presets/*.yaml) sets the axes; each axis is handled in
// exactly one function of core/model, and none of them asks for the family's name.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "core/base/fields.h"

namespace mixtape {

enum class Family { decoder, encoder, encoder_decoder };
enum class Position { learned, sinusoidal, rope, alibi, relative_bias, none };
enum class NormKind { layernorm, rmsnorm };
enum class NormPlacement { pre, post };
// gelu is exact (erf), gelu_tanh the tanh approximation; the last four are gated: act(gate) * up.
enum class Activation { relu, gelu, gelu_tanh, silu, swiglu, geglu, geglu_tanh };
// How weights start. normal: all with standard deviation init_std (GPT, BERT, BART). fan_in: a matrix with init_std /
// sqrt(its inputs), embeddings with init_std / embedding_scale, and queries with the factor that an attention without
// 1 / sqrt(head_dim) lacks (T5; the original Transformer but for the second order of Glorot's rule).
enum class InitScheme { normal, fan_in };
// What is predicted: tokens; a label of the sequence, from its first token's last hidden state by way of a dense layer
// with tanh; or a label of each token.
enum class Head { vocabulary, sequence_labels, token_labels };
enum class RopeScalingKind { none, linear, dynamic, yarn, llama3 };

constexpr auto names(std::type_identity<Family>) {
  using E = Family;
  return std::array{Named<E>{E::decoder, "decoder"}, Named<E>{E::encoder, "encoder"},
                    Named<E>{E::encoder_decoder, "encoder_decoder"}};
}
constexpr auto names(std::type_identity<Position>) {
  using E = Position;
  return std::array{
      Named<E>{E::learned, "learned"}, Named<E>{E::sinusoidal, "sinusoidal"},       Named<E>{E::rope, "rope"},
      Named<E>{E::alibi, "alibi"},     Named<E>{E::relative_bias, "relative_bias"}, Named<E>{E::none, "none"}};
}
constexpr auto names(std::type_identity<NormKind>) {
  using E = NormKind;
  return std::array{Named<E>{E::layernorm, "layernorm"}, Named<E>{E::rmsnorm, "rmsnorm"}};
}
constexpr auto names(std::type_identity<NormPlacement>) {
  using E = NormPlacement;
  return std::array{Named<E>{E::pre, "pre"}, Named<E>{E::post, "post"}};
}
constexpr auto names(std::type_identity<Activation>) {
  using E = Activation;
  return std::array{Named<E>{E::relu, "relu"},
                    Named<E>{E::gelu, "gelu"},
                    Named<E>{E::gelu_tanh, "gelu_tanh"},
                    Named<E>{E::silu, "silu"},
                    Named<E>{E::swiglu, "swiglu"},
                    Named<E>{E::geglu, "geglu"},
                    Named<E>{E::geglu_tanh, "geglu_tanh"}};
}
constexpr auto names(std::type_identity<InitScheme>) {
  using E = InitScheme;
  return std::array{Named<E>{E::normal, "normal"}, Named<E>{E::fan_in, "fan_in"}};
}
constexpr auto names(std::type_identity<Head>) {
  using E = Head;
  return std::array{Named<E>{E::vocabulary, "vocabulary"}, Named<E>{E::sequence_labels, "sequence_labels"},
                    Named<E>{E::token_labels, "token_labels"}};
}
constexpr auto names(std::type_identity<RopeScalingKind>) {
  using E = RopeScalingKind;
  return std::array{Named<E>{E::none, "none"}, Named<E>{E::linear, "linear"}, Named<E>{E::dynamic, "dynamic"},
                    Named<E>{E::yarn, "yarn"}, Named<E>{E::llama3, "llama3"}};
}

constexpr bool is_gated(Activation a) {
  return a == Activation::swiglu || a == Activation::geglu || a == Activation::geglu_tanh;
}

// Scaling of rotary frequencies to longer contexts than a model was trained on; see core/ops/position.h.
struct RopeScaling {
  RopeScalingKind type = RopeScalingKind::none;
  double factor = 1.0;
  double low_freq_factor = 1.0;   // llama3
  double high_freq_factor = 4.0;  // llama3
  double beta_fast = 32;          // yarn
  double beta_slow = 1;           // yarn
  double attention_factor = 0;    // yarn; 0 means 0.1 ln(factor) + 1
  int64_t original_max_positions = 8192;
};

constexpr auto fields(std::type_identity<RopeScaling>) {
  using C = RopeScaling;
  return std::tuple{
      field("type", &C::type, "how rotary frequencies are stretched to a longer context", Aliases{"rope_type"}),
      field("factor", &C::factor, "longer context / trained context", at_least(1)),
      field("low_freq_factor", &C::low_freq_factor,
            "llama3: wavelengths above original_max_positions / this are scaled", above(0)),
      field("high_freq_factor", &C::high_freq_factor,
            "llama3: wavelengths below original_max_positions / this are kept", above(0)),
      field("beta_fast", &C::beta_fast, "yarn: with more rotations than this over the trained context, kept", above(0)),
      field("beta_slow", &C::beta_slow, "yarn: with fewer rotations than this, scaled in full", above(0)),
      field("attention_factor", &C::attention_factor, "yarn: factor of the rotated vectors; 0: 0.1 ln(factor) + 1",
            at_least(0)),
      field("original_max_positions", &C::original_max_positions, "the context that the model was trained with",
            Range{1, 1 << 30}, Aliases{"original_max_position_embeddings"}),
  };
}

struct ModelSpec {
  Family family = Family::decoder;
  int64_t n_layers = 12;
  int64_t n_decoder_layers = 0;  // encoder_decoder only; 0 means n_layers
  int64_t d_model = 768;
  int64_t n_heads = 12;
  int64_t n_kv_heads = 0;  // 0 means n_heads
  int64_t head_dim = 0;    // 0 means d_model / n_heads
  int64_t d_ff = 0;        // 0 means 4 * d_model
  int64_t vocab_size = 50257;
  int64_t max_positions = 1024;

  Position position = Position::learned;
  int64_t position_offset = 0;  // learned: row = position + offset (2 in OPT and BART)
  double rope_theta = 10000;
  double rope_fraction = 1.0;  // the share of each head that is rotated
  RopeScaling rope_scaling;
  int64_t relative_buckets = 32;
  int64_t relative_distance = 128;

  NormKind norm = NormKind::layernorm;
  NormPlacement norm_placement = NormPlacement::pre;
  double norm_eps = 1e-5;
  bool final_norm = true;
  bool embedding_norm = false;
  bool qk_norm = false;

  Activation activation = Activation::gelu_tanh;
  bool bias = true;              // of linear layers and layernorms
  std::optional<bool> qkv_bias;  // where it differs from bias (Qwen 2)
  std::optional<bool> out_bias;  // of the attention's output projection, where it differs
  bool tied_embeddings = true;
  bool lm_head_bias = false;

  double attention_scale = 0;          // 0 means 1 / sqrt(head_dim)
  double logit_scale = 1;              // 0 means 1 / sqrt(d_model): T5 where the output layer is the embedding
  double embedding_scale = 1;          // 0 means sqrt(d_model): the original Transformer
  int64_t window = 0;                  // sliding window in tokens, every layer; 0 means none
  std::vector<int64_t> window_layers;  // one a layer, where layers differ; empty means `window` for all
  int64_t pad_id = -1;                 // its embedding row gets no gradient from lookups; -1 means none
  int64_t token_types = 0;
  bool mlm_head = false;  // dense, activation and norm before the output layer
  Head head = Head::vocabulary;
  int64_t n_labels = 0;  // of a head of labels

  double dropout = 0;            // of embeddings and of each residual branch
  double attention_dropout = 0;  // of attention probabilities

  InitScheme init = InitScheme::normal;
  double init_std = 0.02;
  bool init_residual_scaled = true;  // residual projections start at init_std / sqrt(their number in the stack)

  // The values that a zero stands for.
  int64_t kv_heads() const { return n_kv_heads ? n_kv_heads : n_heads; }
  int64_t head_width() const { return head_dim ? head_dim : d_model / n_heads; }
  int64_t ff_width() const { return d_ff ? d_ff : 4 * d_model; }
  int64_t decoder_layers() const { return n_decoder_layers ? n_decoder_layers : n_layers; }
  double query_key_scale() const { return attention_scale > 0 ? attention_scale : 1 / std::sqrt(double(head_width())); }
  double logit_factor() const { return logit_scale > 0 ? logit_scale : 1 / std::sqrt(double(d_model)); }
  double embedding_factor() const { return embedding_scale > 0 ? embedding_scale : std::sqrt(double(d_model)); }
  bool has_qkv_bias() const { return qkv_bias.value_or(bias); }
  bool has_out_bias() const { return out_bias.value_or(bias); }
  // What the last product gives for each row.
  int64_t n_outputs() const { return head == Head::vocabulary ? vocab_size : n_labels; }
  int64_t layer_window(int64_t layer) const { return window_layers.empty() ? window : window_layers[layer]; }
};

// The keys of `model:` in a configuration. What other frameworks call them is accepted too.
constexpr auto fields(std::type_identity<ModelSpec>) {
  using C = ModelSpec;
  constexpr Range size{1, 1 << 30}, size_or_zero{0, 1 << 30}, probability = from_to_below(0, 1);
  return std::tuple{
      field("family", &C::family, "decoder (GPT, LLaMA), encoder (BERT) or encoder_decoder (T5, BART)"),
      field("n_layers", &C::n_layers, "blocks; of the encoder where there are two stacks", Range{1, 10000},
            Aliases{"n_layer", "num_layers", "num_hidden_layers", "encoder_layers"}),
      field("n_decoder_layers", &C::n_decoder_layers, "encoder_decoder: the decoder's blocks; 0: n_layers",
            Range{0, 10000}, Aliases{"num_decoder_layers", "decoder_layers"}),
      field("d_model", &C::d_model, "width of the residual stream", size, Aliases{"n_embd", "hidden_size"}),
      field("n_heads", &C::n_heads, "attention heads", Range{1, 65536},
            Aliases{"n_head", "num_attention_heads", "num_heads"}),
      field("n_kv_heads", &C::n_kv_heads, "heads of keys and values, each shared by n_heads / n_kv_heads; 0: n_heads",
            Range{0, 65536}, Aliases{"num_key_value_heads", "n_query_groups", "num_query_groups"}),
      field("head_dim", &C::head_dim, "width of a head; 0: d_model / n_heads", Range{0, 65536},
            Aliases{"kv_channels", "d_kv"}),
      field("d_ff", &C::d_ff, "inner width of the feed-forward layer; 0: 4 * d_model", size_or_zero,
            Aliases{"intermediate_size", "n_inner", "ffn_hidden_size", "ffn_dim"}),
      field("vocab_size", &C::vocab_size, "tokens that the model knows, at least the tokenizer's", size),
      field("max_positions", &C::max_positions, "the longest sequence", size,
            Aliases{"block_size", "n_positions", "n_ctx", "max_position_embeddings"}),
      field("position", &C::position, "how a token knows its place", Aliases{"position_embedding_type"}),
      field("position_offset", &C::position_offset, "learned: position p reads row p + offset (2 in OPT and BART)",
            Range{0, 65536}),
      field("rope_theta", &C::rope_theta, "rope: base of the wavelengths", above(0),
            Aliases{"rope_base", "rotary_base"}),
      field("rope_fraction", &C::rope_fraction, "rope: share of each head that is rotated", above_up_to(0, 1),
            Aliases{"rotary_percent", "rotary_pct", "partial_rotary_factor"}),
      field("rope_scaling", &C::rope_scaling, "rope: scaling to a longer context"),
      field("relative_buckets", &C::relative_buckets, "relative_bias: buckets of distances", Range{2, 65536},
            Aliases{"relative_attention_num_buckets"}),
      field("relative_distance", &C::relative_distance, "relative_bias: distances from here on share a bucket", size,
            Aliases{"relative_attention_max_distance"}),
      field("norm", &C::norm, "the normalisation", Aliases{"normalization"}),
      field("norm_placement", &C::norm_placement, "before each sub-layer, or after its residual sum"),
      field("norm_eps", &C::norm_eps, "added to the variance or the mean square", above_up_to(0, 1),
            Aliases{"rms_norm_eps", "layer_norm_epsilon", "layer_norm_eps", "layernorm_epsilon"}),
      field("final_norm", &C::final_norm, "a norm after the last block"),
      field("embedding_norm", &C::embedding_norm, "a norm after the embedding (BLOOM)"),
      field("qk_norm", &C::qk_norm, "norms of queries and keys, per head"),
      field("activation", &C::activation,
            "of the feed-forward layer; gelu is exact (erf), gelu_tanh the approximation; swiglu, geglu and geglu_tanh "
            "are gated",
            Aliases{"hidden_act", "activation_function"}),
      field("bias", &C::bias, "biases of linear layers and layernorms"),
      field("qkv_bias", &C::qkv_bias, "biases of queries, keys and values; null: as bias"),
      field("out_bias", &C::out_bias, "bias of the attention's output; null: as bias"),
      field("tied_embeddings", &C::tied_embeddings, "the output layer is the embedding",
            Aliases{"tie_word_embeddings", "tie_embeddings"}),
      field("lm_head_bias", &C::lm_head_bias, "a bias of the output layer"),
      field("attention_scale", &C::attention_scale, "factor of q k^T; 0: 1 / sqrt(head_dim)", at_least(0)),
      field("logit_scale", &C::logit_scale, "factor of the logits; 0: 1 / sqrt(d_model)", at_least(0)),
      field("embedding_scale", &C::embedding_scale, "factor of the token's embedding; 0: sqrt(d_model)", at_least(0)),
      field("window", &C::window, "a token sees this many tokens, itself included; 0: all before it", size_or_zero,
            Aliases{"sliding_window"}),
      field("window_layers", &C::window_layers, "the window of each layer, where they differ; []: window in all",
            size_or_zero),
      field("pad_id", &C::pad_id, "this token's embedding gets no gradient from lookups; -1: none", Range{-1, 1 << 30},
            Aliases{"pad_token_id"}),
      field("token_types", &C::token_types, "token types with an embedding each (2 in BERT)", Range{0, 65536},
            Aliases{"type_vocab_size"}),
      field("mlm_head", &C::mlm_head, "masked LM: dense, activation and norm before the output layer"),
      field("head", &C::head, "what is predicted; follows from objective.name"),
      field("n_labels", &C::n_labels, "labels of such a head; follows from objective.labels", Range{0, 1 << 20}),
      field("dropout", &C::dropout, "of embeddings and residual branches, rounded to k / 256", probability,
            allowed_on_resume, Aliases{"resid_pdrop", "hidden_dropout", "hidden_dropout_prob"}),
      field("attention_dropout", &C::attention_dropout, "of attention probabilities, rounded to k / 256", probability,
            allowed_on_resume, Aliases{"attn_pdrop", "attention_probs_dropout_prob"}),
      field("init", &C::init,
            "how weights start: normal: all with init_std; fan_in: a matrix with init_std / sqrt(its inputs), "
            "embeddings with init_std / embedding_scale (T5)"),
      field("init_std", &C::init_std, "standard deviation of initial weights; fan_in: a factor of it",
            above_up_to(0, 10), Aliases{"initializer_range", "init_method_std", "initializer_factor"}),
      field("init_residual_scaled", &C::init_residual_scaled,
            "projections into the residual stream start smaller by sqrt(2 * n_layers); by sqrt(3 * n_decoder_layers) "
            "where there is cross-attention"),
  };
}

}  // namespace mixtape
