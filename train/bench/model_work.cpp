#include "train/bench/model_work.h"

#include <vector>

namespace mixtape {
namespace {

struct Model {
  const ModelSpec& spec;
  int64_t rows, length, element;

  int64_t d() const { return spec.d_model; }
  int64_t heads() const { return spec.n_heads * spec.head_width(); }
  int64_t kv() const { return spec.kv_heads() * spec.head_width(); }
  int64_t ff() const { return spec.ff_width(); }
  double bytes(int64_t width) const { return double(rows * width * element); }
};

// `activated`: the layers whose operation includes an activation.
Work linears(const Model& m, bool activated, bool backward) {
  const bool gated = is_gated(m.spec.activation);
  std::vector<LinearSize> sizes;
  if (activated) {
    if (!gated) sizes = {{m.rows, m.d(), m.ff()}};
  } else {
    sizes = {{m.rows, m.d(), m.heads() + 2 * m.kv()}, {m.rows, m.heads(), m.d()}, {m.rows, m.ff(), m.d()}};
    if (gated) sizes.push_back({m.rows, m.d(), 2 * m.ff()});
  }
  Work w;
  for (const LinearSize& s : sizes)
    w += backward ? linear_input_gradient_work(s, m.element) + linear_weight_gradient_work(s, m.element)
                  : linear_work(s, m.element);
  return w;
}

Work attention(const Model& m, bool backward) {
  Work w;
  for (int64_t layer = 0; layer < m.spec.n_layers; ++layer)
    w += attention_work({.queries = m.rows,
                         .keys = m.rows,
                         .seen = keys_seen(m.length, m.spec.family != Family::encoder, m.spec.layer_window(layer)),
                         .heads = m.spec.n_heads,
                         .kv_heads = m.spec.kv_heads(),
                         .head_dim = m.spec.head_width()},
                        m.element, backward);
  return w;
}

Work embedding(const Model& m, bool backward) {
  const int64_t positions =
      m.spec.position == Position::learned ? m.spec.max_positions + m.spec.position_offset : int64_t(0);
  const int64_t small = positions + m.spec.token_types;
  if (!backward) return embedding_work(m.rows, m.d(), m.element, 1 + (positions > 0) + (m.spec.token_types > 0));
  if (!m.spec.tied_embeddings) return embedding_gradient_work(m.rows, m.d(), m.element, m.spec.vocab_size + small);
  // The gradient of a tied table is there already, from the head.
  return embedding_added_gradient_work(m.rows, m.d(), m.element, 1) +
         embedding_gradient_work(0, m.d(), m.element, small);
}

}  // namespace

Work model_work(const ModelSpec& spec, int64_t rows, int64_t length, int64_t element, std::string_view operation,
                bool backward) {
  const Model m{spec, rows, length, element};
  const double layers = double(spec.n_layers), hidden = m.bytes(m.d());
  // The first norm of a pre-norm model has no branch to add.
  const double first = spec.norm_placement == NormPlacement::pre ? 1 : 0;
  const double norms = 2 * layers + (spec.final_norm ? 1 : 0);

  if (operation == "linear") return layers * linears(m, false, backward);
  if (operation == "linear_activation") return layers * linears(m, true, backward);
  if (operation == "attention") return attention(m, backward);
  if (operation == "cross_entropy")
    return backward ? Work{} : cross_entropy_work(rows, m.d(), spec.vocab_size, element, true);
  if (operation == "norm") return (first + (spec.embedding_norm ? 1 : 0)) * norm_work(hidden, backward);
  if (operation == "residual_norm") return (norms - first) * residual_norm_work(hidden, backward);
  if (operation == "gated_activation") return layers * gated_activation_work(m.bytes(m.ff()), backward);
  if (operation == "rope") {
    const double rotated = m.bytes(m.heads() + m.kv());
    return layers * pass_work(rotated, rotated);
  }
  if (operation == "dropout") return (2 * layers + 1) * pass_work(hidden, hidden);
  if (operation == "embedding") return embedding(m, backward);
  return {};
}

}  // namespace mixtape
