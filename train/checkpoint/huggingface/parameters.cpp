// Mixtape's own names and shapes, and mappings onto them.
#include <numeric>

#include "core/model/stack.h"
#include "train/checkpoint/huggingface/family.h"

namespace mixtape {

namespace {

class ShapeList {
 public:
  explicit ShapeList(const ModelSpec& spec) : s(spec) {}
  void add(std::string name, Extents shape) { list.push_back({std::move(name), std::move(shape)}); }
  void linear(const std::string& name, int64_t out, int64_t in, bool bias) {
    add(name + ".weight", {out, in});
    if (bias) add(name + ".bias", {out});
  }
  void norm(const std::string& name, int64_t width) {
    add(name + ".weight", {width});
    if (s.bias && s.norm == NormKind::layernorm) add(name + ".bias", {width});
  }
  void layer(const std::string& prefix, bool cross);
  void stack(const StackAxes& axes);
  void head();

  const ModelSpec& s;
  std::vector<ParameterShape> list;
};

void ShapeList::layer(const std::string& prefix, bool cross) {
  const int64_t d = s.d_model, D = s.head_width(), H = s.n_heads, Hkv = s.kv_heads(), ff = s.ff_width();
  norm(prefix + "norm1", d);
  linear(prefix + "attention.qkv", (H + 2 * Hkv) * D, d, s.has_qkv_bias());
  if (s.qk_norm) norm(prefix + "attention.q_norm", D), norm(prefix + "attention.k_norm", D);
  linear(prefix + "attention.out", d, H * D, s.has_out_bias());
  if (cross) {
    norm(prefix + "norm_cross", d);
    linear(prefix + "cross_attention.q", H * D, d, s.has_qkv_bias());
    linear(prefix + "cross_attention.kv", 2 * Hkv * D, d, s.has_qkv_bias());
    linear(prefix + "cross_attention.out", d, H * D, s.has_out_bias());
  }
  norm(prefix + "norm2", d);
  linear(prefix + "mlp.up", is_gated(s.activation) ? 2 * ff : ff, d, s.bias);
  linear(prefix + "mlp.down", d, ff, s.bias);
}

void ShapeList::stack(const StackAxes& axes) {
  if (s.position == Position::learned)
    add(axes.prefix + "embedding.position", {s.max_positions + s.position_offset, s.d_model});
  if (axes.token_types) add(axes.prefix + "embedding.type", {axes.token_types, s.d_model});
  if (s.embedding_norm) norm(axes.prefix + "embedding.norm", s.d_model);
  if (s.position == Position::relative_bias) add(axes.prefix + "relative_bias", {s.relative_buckets, s.n_heads});
  for (int64_t i = 0; i < axes.n_layers; ++i) layer(fmt::format("{}layers.{}.", axes.prefix, i), axes.cross_attention);
  if (s.final_norm) norm(axes.prefix + "final_norm", s.d_model);
}

void ShapeList::head() {
  if (s.head != Head::vocabulary) {
    if (s.head == Head::sequence_labels) linear("pooler.dense", s.d_model, s.d_model, s.bias);
    linear("classifier", s.n_labels, s.d_model, s.bias);
    return;
  }
  if (s.mlm_head) {
    linear("mlm_head.dense", s.d_model, s.d_model, s.bias);
    norm("mlm_head.norm", s.d_model);
  }
  if (!s.tied_embeddings) add("lm_head.weight", {s.vocab_size, s.d_model});
  if (s.lm_head_bias) add("lm_head.bias", {s.vocab_size});
}

}  // namespace

bool is_of_head(std::string_view parameter) {
  for (const char* prefix : {"mlm_head.", "lm_head.", "pooler.", "classifier."})
    if (parameter.starts_with(prefix)) return true;
  return false;
}

std::vector<ParameterShape> parameter_shapes(const ModelSpec& s) {
  ShapeList shapes(s);
  shapes.add("embedding.token", {s.vocab_size, s.d_model});
  for (const StackAxes& axes : stacks_of(s)) shapes.stack(axes);
  shapes.head();
  return std::move(shapes.list);
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

void MappingList::as_row(const std::string& name, const std::string& parameter, int64_t count) {
  const bool has = shape_of(parameter) != nullptr;
  list_.push_back({name, {1, count}, has ? parameter : "", 0, 1, has ? Arrangement::rows : Arrangement::zeros});
}

void MappingList::by_head(const std::string& name, const std::string& parameter, int64_t n_heads) {
  if (const Extents* shape = shape_of(parameter))
    list_.push_back({name, *shape, parameter, 0, (*shape)[0], Arrangement::by_head, n_heads});
}

}  // namespace huggingface
}  // namespace mixtape
