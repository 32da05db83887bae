#include "train/bench/work.h"

#include <algorithm>

#include "core/cpu/probe.h"

namespace mixtape {
namespace {

// A linear layer of n inputs and m outputs on r rows. Backward: two products, and the weight's gradient in float32.
Work linear_work(double r, double n, double m, double element, bool backward) {
  if (!backward) return {2 * r * n * m, element * (r * n + n * m), element * r * m};
  return {4 * r * n * m, element * (2 * r * m + n * m + r * n), element * r * n + 4 * n * m};
}

Work& operator+=(Work& a, const Work& b) {
  a.flops += b.flops, a.read += b.read, a.written += b.written;
  return a;
}

struct Sizes {
  const ModelSpec& spec;
  double rows, length, element;

  double d() const { return double(spec.d_model); }
  double heads() const { return double(spec.n_heads * spec.head_width()); }
  double kv() const { return double(spec.kv_heads() * spec.head_width()); }
  double qkv() const { return heads() + 2 * kv(); }
  double ff() const { return double(spec.ff_width()); }
  double hidden() const { return rows * d() * element; }  // bytes of one tensor [rows, d]
};

// `activated`: the layers whose operation includes an activation.
Work linears(const Sizes& s, bool activated, bool backward) {
  const bool gated = is_gated(s.spec.activation);
  const auto one = [&](double n, double m) { return linear_work(s.rows, n, m, s.element, backward); };
  if (activated) return gated ? Work{} : one(s.d(), s.ff());
  Work w = one(s.d(), s.qkv());
  w += one(s.heads(), s.d());
  w += one(s.ff(), s.d());
  if (gated) w += one(s.d(), 2 * s.ff());
  return w;
}

// Two products forward and five backward (the scores are made again) over the keys that a query sees: on average, with
// a window of w over sequences of T, w - w^2 / 2T of them when causal.
Work attention(const Sizes& s, int64_t layer, bool backward) {
  const int64_t window = s.spec.layer_window(layer);
  const double seen = window > 0 ? std::min(double(window), s.length) : s.length;
  const double causal = s.spec.family == Family::encoder ? 0 : seen * seen / (2 * s.length);
  const double pairs = s.rows * (seen - causal);
  const double qkv = s.rows * s.qkv() * s.element, out = s.rows * s.heads() * s.element;
  if (!backward) return {4 * pairs * s.heads(), qkv, out};
  return {10 * pairs * s.heads(), qkv + 2 * out, qkv};
}

// Forward does all: logits, their gradient, and both products with it.
Work cross_entropy(const Sizes& s) {
  const double v = double(s.spec.vocab_size), weight = v * s.d();
  return {6 * s.rows * weight, s.hidden() + s.element * weight, s.hidden() + 4 * weight};
}

}  // namespace

Limits measure_limits() {
  Limits l;
  fma_rate(0.1);
  for (int i = 0; i < 3; ++i) l.fma = std::max(l.fma, fma_rate());
  l.fma_one = fma_rate_one_thread();
  const MemoryRates memory = memory_rates();
  l.read = memory.read;
  l.copy = memory.copy;
  return l;
}

double least_seconds(const Work& w, const Limits& l) {
  const double bytes = w.read + w.written;
  const double traffic = bytes / (w.written > 0 ? std::max(l.copy, l.read) : l.read);
  return std::max(w.flops / l.fma, traffic);
}

Work model_work(const ModelSpec& spec, int64_t rows, int64_t length, int64_t element, std::string_view operation,
                bool backward) {
  const Sizes s{spec, double(rows), double(length), double(element)};
  const double layers = double(spec.n_layers), norms = 2 * layers + (spec.final_norm ? 1 : 0);
  const auto times = [](double n, Work w) { return Work{n * w.flops, n * w.read, n * w.written}; };
  const double h = s.hidden(), inner = s.rows * s.ff() * s.element;

  if (operation == "linear") return times(layers, linears(s, false, backward));
  if (operation == "linear_activation") return times(layers, linears(s, true, backward));
  if (operation == "cross_entropy") return backward ? Work{} : cross_entropy(s);
  if (operation == "attention") {
    Work w;
    for (int64_t layer = 0; layer < spec.n_layers; ++layer) w += attention(s, layer, backward);
    return w;
  }
  // Bytes only: these do a few operations an element. The first norm of a pre-norm model has no branch to add.
  const double plain = (spec.norm_placement == NormPlacement::pre ? 1 : 0) + (spec.embedding_norm ? 1 : 0);
  if (operation == "norm") return times(plain, {0, backward ? 2 * h : h, h});
  if (operation == "residual_norm")
    return times(norms - (spec.norm_placement == NormPlacement::pre ? 1 : 0),
                 {0, backward ? 3 * h : 2 * h, backward ? h : 2 * h});
  if (operation == "gated_activation")
    return times(layers, {0, backward ? 3 * inner : 2 * inner, backward ? 2 * inner : inner});
  const double rotated = s.rows * (s.heads() + s.kv()) * s.element;
  if (operation == "rope") return times(layers, {0, rotated, rotated});
  if (operation == "dropout") return times(2 * layers + 1, {0, h, h});
  if (operation == "embedding") {
    // A tied table's gradient is there already, from the head; else all of it is written.
    const double table = spec.tied_embeddings ? h : 4 * double(spec.vocab_size) * s.d();
    return {0, backward ? h : 2 * h, backward ? table : h};
  }
  return {};
}

}  // namespace mixtape
