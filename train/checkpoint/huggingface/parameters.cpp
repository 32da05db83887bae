// Mixtape's own names and shapes, and mappings onto them.
#include <numeric>

#include "train/checkpoint/huggingface/family.h"

namespace mixtape {

std::vector<ParameterShape> parameter_shapes(const ModelSpec& s) {
  if (s.family != Family::decoder)
    throw ConfigError("model.family: only decoder models can be stored, not {}", s.family);
  const int64_t d = s.d_model, D = s.head_width(), H = s.n_heads, Hkv = s.kv_heads(), ff = s.ff_width();
  std::vector<ParameterShape> list;
  const auto add = [&](std::string name, Extents shape) { list.push_back({std::move(name), std::move(shape)}); };
  const auto linear = [&](const std::string& name, int64_t out, int64_t in, bool bias) {
    add(name + ".weight", {out, in});
    if (bias) add(name + ".bias", {out});
  };
  const auto norm = [&](const std::string& name, int64_t width) {
    add(name + ".weight", {width});
    if (s.bias && s.norm == NormKind::layernorm) add(name + ".bias", {width});
  };

  add("embedding.token", {s.vocab_size, d});
  if (s.position == Position::learned) add("embedding.position", {s.max_positions + s.position_offset, d});
  if (s.embedding_norm) norm("embedding.norm", d);
  for (int64_t i = 0; i < s.n_layers; ++i) {
    const std::string layer = fmt::format("layers.{}.", i);
    norm(layer + "norm1", d);
    linear(layer + "attention.qkv", (H + 2 * Hkv) * D, d, s.has_qkv_bias());
    if (s.qk_norm) norm(layer + "attention.q_norm", D), norm(layer + "attention.k_norm", D);
    linear(layer + "attention.out", d, H * D, s.has_out_bias());
    norm(layer + "norm2", d);
    linear(layer + "mlp.up", is_gated(s.activation) ? 2 * ff : ff, d, s.bias);
    linear(layer + "mlp.down", d, ff, s.bias);
  }
  if (s.final_norm) norm("final_norm", d);
  if (!s.tied_embeddings) add("lm_head.weight", {s.vocab_size, d});
  if (s.lm_head_bias) add("lm_head.bias", {s.vocab_size});
  return list;
}

namespace huggingface {

MappingList::MappingList(const ModelSpec& spec) {
  for (ParameterShape& p : parameter_shapes(spec)) shapes_[std::move(p.name)] = std::move(p.shape);
}

const Extents* MappingList::shape_of(const std::string& parameter) const {
  const auto found = shapes_.find(parameter);
  return found == shapes_.end() ? nullptr : &found->second;
}

void MappingList::whole(const std::string& name, const std::string& parameter) {
  if (const Extents* shape = shape_of(parameter)) rows(name, parameter, 0, (*shape)[0]);
}

void MappingList::rows(const std::string& name, const std::string& parameter, int64_t first_row, int64_t rows) {
  const Extents* shape = shape_of(parameter);
  if (!shape) return;
  Extents stored = *shape;
  stored[0] = rows;
  list_.push_back({name, stored, parameter, first_row, rows});
}

void MappingList::transposed(const std::string& name, const std::string& parameter) {
  if (const Extents* shape = shape_of(parameter))
    list_.push_back({name, {(*shape)[1], (*shape)[0]}, parameter, 0, (*shape)[0], Arrangement::transpose});
}

void MappingList::by_head(const std::string& name, const std::string& parameter, int64_t n_heads) {
  if (const Extents* shape = shape_of(parameter))
    list_.push_back({name, *shape, parameter, 0, (*shape)[0], Arrangement::by_head, n_heads});
}

}  // namespace huggingface
}  // namespace mixtape
