// The axes along which transformers differ: everything the model code knows about an architecture.
//
// GPT-2/3, OPT, BLOOM, LLaMA, Jurassic, Chinchilla, BloombergGPT, BERT, RoBERTa, T5, BART and the original
// encoder-decoder are points in this space. A preset (configs/presets/*.yaml) sets the axes; each axis is handled in
// exactly one function of core/model, and none of them asks for the family's name.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace mixtape {

enum class Family { decoder, encoder, encoder_decoder };
enum class Position { learned, sinusoidal, rope, alibi, relative_bias, none };
enum class NormKind { layernorm, rmsnorm };
enum class NormPlacement { pre, post };
// gelu is exact (erf), gelu_tanh the tanh approximation; the last four are gated: act(gate) * up.
enum class Activation { relu, gelu, gelu_tanh, silu, swiglu, geglu, geglu_tanh };
enum class RopeScalingKind { none, linear, dynamic, yarn, llama3 };

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
  bool bias = true;                  // of linear layers and layernorms
  std::optional<bool> qkv_bias;      // where it differs from bias (Qwen 2)
  std::optional<bool> out_bias;      // of the attention's output projection, where it differs
  bool tied_embeddings = true;
  bool lm_head_bias = false;

  double attention_scale = 0;  // 0 means 1 / sqrt(head_dim)
  double logit_scale = 1;
  double embedding_scale = 1;
  int64_t window = 0;                // sliding window in tokens, every layer; 0 means none
  std::vector<int64_t> window_layers;  // one a layer, where layers differ; empty means `window` for all
  int64_t pad_id = -1;               // its embedding row gets no gradient from lookups; -1 means none
  int64_t token_types = 0;
  bool mlm_head = false;  // dense + activation + norm before the tied decoder, with an output bias

  double dropout = 0;            // of embeddings and of each residual branch
  double attention_dropout = 0;  // of attention probabilities

  double init_std = 0.02;
  bool init_residual_scaled = true;  // residual projections start at init_std / sqrt(2 * n_layers)

  // The values that a zero stands for.
  int64_t kv_heads() const { return n_kv_heads ? n_kv_heads : n_heads; }
  int64_t head_width() const { return head_dim ? head_dim : d_model / n_heads; }
  int64_t ff_width() const { return d_ff ? d_ff : 4 * d_model; }
  int64_t decoder_layers() const { return n_decoder_layers ? n_decoder_layers : n_layers; }
  bool has_qkv_bias() const { return qkv_bias.value_or(bias); }
  bool has_out_bias() const { return out_bias.value_or(bias); }
  int64_t layer_window(int64_t layer) const { return window_layers.empty() ? window : window_layers[layer]; }
};

}  // namespace mixtape
