#include "train/bench/model_work.h"

#include <optional>
#include <vector>

namespace mixtape {
namespace {

// One stack of the model in a micro-batch.
struct StackWork {
  const ModelSpec& spec;
  StackAxes axes;
  int64_t rows, length;                // its tokens, and those of a sequence
  int64_t memory_rows, memory_length;  // of the encoder that it reads
  int64_t element;

  int64_t d() const { return spec.d_model; }
  int64_t heads() const { return spec.n_heads * spec.head_width(); }
  int64_t kv() const { return spec.kv_heads() * spec.head_width(); }
  int64_t ff() const { return spec.ff_width(); }
  double layers() const { return double(axes.n_layers); }
  double sublayers() const { return layers() * (axes.cross_attention ? 3 : 2); }
  double bytes(int64_t width) const { return double(rows * width * element); }

  Work of(std::string_view operation, bool backward) const;
};

Work linear_work(const LinearSize& size, int64_t element, bool backward) {
  return backward ? linear_input_gradient_work(size, element) + linear_weight_gradient_work(size, element)
                  : linear_work(size, element);
}

// `activated`: the layers whose operation includes an activation.
Work linears(const StackWork& s, bool activated, bool backward) {
  const bool gated = is_gated(s.spec.activation);
  std::vector<LinearSize> sizes;
  if (activated) {
    if (!gated) sizes = {{s.rows, s.d(), s.ff()}};
  } else {
    sizes = {{s.rows, s.d(), s.heads() + 2 * s.kv()}, {s.rows, s.heads(), s.d()}, {s.rows, s.ff(), s.d()}};
    if (gated) sizes.push_back({s.rows, s.d(), 2 * s.ff()});
    if (s.axes.cross_attention) {
      sizes.push_back({s.rows, s.d(), s.heads()});
      sizes.push_back({s.memory_rows, s.d(), 2 * s.kv()});
      sizes.push_back({s.rows, s.heads(), s.d()});
    }
  }
  Work w;
  for (const LinearSize& size : sizes) w += linear_work(size, s.element, backward);
  return w;
}

// Of one layer; `seen`: the keys that a query sees on average, of `keys` rows.
Work attention(const StackWork& s, int64_t keys, double seen, bool backward) {
  return attention_work({.queries = s.rows,
                         .keys = keys,
                         .seen = seen,
                         .heads = s.spec.n_heads,
                         .kv_heads = s.spec.kv_heads(),
                         .head_dim = s.spec.head_width()},
                        s.element, backward);
}

Work embedding(const StackWork& s, bool backward) {
  const bool learned = s.spec.position == Position::learned, fixed = s.spec.position == Position::sinusoidal;
  const int64_t types = s.axes.token_types, positions = learned ? s.spec.max_positions + s.spec.position_offset : 0;
  if (!backward) return embedding_work(s.rows, s.d(), s.element, 1 + (learned || fixed) + (types > 0));
  // The gradient of a tied table is there already, from the head; that of two stacks is written by the second.
  if (!s.spec.tied_embeddings && s.axes.prefix != "encoder.")
    return embedding_gradient_work(s.rows, s.d(), s.element, s.spec.vocab_size + positions + types);
  return embedding_added_gradient_work(s.rows, s.d(), s.element, 1) +
         embedding_gradient_work(0, s.d(), s.element, positions + types);
}

Work StackWork::of(std::string_view operation, bool backward) const {
  const double hidden = bytes(d());
  // The first norm of a pre-norm stack has no branch to add.
  const double first = spec.norm_placement == NormPlacement::pre ? 1 : 0;
  if (operation == "linear") return layers() * linears(*this, false, backward);
  if (operation == "linear_activation") return layers() * linears(*this, true, backward);
  // Where operands are rounded, an activation is an operation of its own.
  if (operation == "quantised_linear")
    return layers() * (linears(*this, false, backward) + linears(*this, true, backward));
  if (operation == "activation" && !is_gated(spec.activation)) return layers() * activation_work(bytes(ff()), backward);
  if (operation == "cross_attention" && axes.cross_attention)
    return layers() * attention(*this, memory_rows, double(memory_length), backward);
  if (operation == "attention") {
    Work w;
    for (int64_t layer = 0; layer < axes.n_layers; ++layer)
      w += attention(*this, rows, keys_seen(length, axes.causal, spec.layer_window(layer)), backward);
    return w;
  }
  if (operation == "norm") return (first + (spec.embedding_norm ? 1 : 0)) * norm_work(hidden, backward);
  if (operation == "residual_norm")
    return (sublayers() + (spec.final_norm ? 1 : 0) - first) * residual_norm_work(hidden, backward);
  if (operation == "gated_activation") return layers() * gated_activation_work(bytes(ff()), backward);
  if (operation == "rope") {
    const double rotated = bytes(heads() + kv());
    return layers() * pass_work(rotated, rotated);
  }
  if (operation == "dropout") return (sublayers() + 1) * pass_work(hidden, hidden);
  if (operation == "embedding") return embedding(*this, backward);
  return {};
}

// What follows the last stack, for the rows that have a target.
Work head_work(const StackWork& last, int64_t rows, std::string_view operation, bool backward) {
  const double hidden = double(rows * last.d() * last.element);
  if (operation == "cross_entropy" && !backward)
    return cross_entropy_work(rows, last.d(), last.spec.vocab_size, last.element, true);
  if (operation == "gather_rows" && rows < last.rows)
    return pass_work(hidden, backward ? last.bytes(last.d()) : hidden);
  if (!last.spec.mlm_head) return {};
  if (operation == "linear_activation") return linear_work({rows, last.d(), last.d()}, last.element, backward);
  if (operation == "norm") return norm_work(hidden, backward);
  return {};
}

}  // namespace

Work model_work(const ModelSpec& spec, const MicroBatchShape& shape, std::string_view operation, bool backward) {
  const SequenceLengths& lengths = shape.lengths;
  Work w;
  std::optional<StackWork> last;
  for (const StackAxes& axes : stacks_of(spec)) {
    const int64_t length = axes.cross_attention ? lengths.decoder : lengths.main;
    const int64_t memory = axes.cross_attention ? lengths.main : 0;
    last.emplace(
        StackWork{spec, axes, shape.sequences * length, length, shape.sequences * memory, memory, shape.element});
    w += last->of(operation, backward);
  }
  return w + head_work(*last, lengths.targets ? shape.sequences * lengths.targets : last->rows, operation, backward);
}

}  // namespace mixtape
