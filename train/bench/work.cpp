#include "train/bench/work.h"

#include <algorithm>

#include "core/cpu/probe.h"

namespace mixtape {
namespace {

constexpr double float_bytes = 4;

// A product of [a, b] with [b, c]; the factors' elements and the result's.
double product(double a, double b, double c) { return 2 * a * b * c; }

double traffic_seconds(const Work& w, const Limits& l) {
  // Reading alone is no faster than the reading rate, whatever the rate of both together is.
  return std::max(w.read / l.read, w.written > 0 ? w.bytes() / std::max(l.copy, l.read) : 0);
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

Limits best_of(const Limits& a, const Limits& b) {
  return {std::max(a.fma, b.fma),
          std::max(a.fma_one, b.fma_one),
          std::max(a.read, b.read),
          std::max(a.copy, b.copy),
          a.device,
          a.type};
}

double least_seconds(const Work& w, const Limits& l) { return std::max(w.flops / l.fma, traffic_seconds(w, l)); }

bool bound_by_arithmetic(const Work& w, const Limits& l) { return w.flops / l.fma >= traffic_seconds(w, l); }

Work linear_work(const LinearSize& s, int64_t element) {
  const double r = double(s.rows), n = double(s.in), m = double(s.out), e = double(element);
  return {product(r, n, m), e * (r * n + n * m), e * r * m};
}

Work linear_int8_work(const LinearSize& s, int64_t element) {
  const double r = double(s.rows), n = double(s.in), m = double(s.out), e = double(element);
  return {product(r, n, m), e * r * n + n * m + float_bytes * m, e * r * m};
}

Work linear_input_gradient_work(const LinearSize& s, int64_t element) {
  return linear_work({s.rows, s.out, s.in}, element);
}

Work linear_weight_gradient_work(const LinearSize& s, int64_t element) {
  const double r = double(s.rows), n = double(s.in), m = double(s.out), e = double(element);
  return {product(m, r, n), e * r * (m + n), float_bytes * n * m};
}

double keys_seen(int64_t length, bool causal, int64_t window) {
  const double t = double(length), seen = window > 0 ? std::min(double(window), t) : t;
  return seen - (causal ? seen * seen / (2 * t) : 0);
}

Work attention_work(const AttentionSize& s, int64_t element, bool backward) {
  const double e = double(element), width = double(s.heads * s.head_dim);
  const double q = e * double(s.queries) * width, kv = 2 * e * double(s.keys * s.kv_heads * s.head_dim);
  const double one = product(double(s.queries) * s.seen, width, 1);
  // Backward reads q, k, v, the output and its gradient.
  return backward ? Work{5 * one, 3 * q + kv, q + kv} : Work{2 * one, q + kv, q};
}

Work cross_entropy_work(int64_t rows, int64_t d_model, int64_t vocabulary, int64_t element, bool gradients) {
  const double weight = double(vocabulary) * double(d_model), hidden = double(element * rows * d_model);
  const double logits = product(double(rows), double(d_model), double(vocabulary));
  const double read = hidden + double(element) * weight;
  return gradients ? Work{3 * logits, read, hidden + float_bytes * weight} : Work{logits, read, 0};
}

Work norm_work(double bytes, bool backward) { return {0, backward ? 2 * bytes : bytes, bytes}; }

Work residual_norm_work(double bytes, bool backward) {
  return backward ? Work{0, 3 * bytes, bytes} : Work{0, 2 * bytes, 2 * bytes};
}

Work activation_work(double bytes, bool backward) { return norm_work(bytes, backward); }

Work gated_activation_work(double bytes, bool backward) {
  return backward ? Work{0, 3 * bytes, 2 * bytes} : Work{0, 2 * bytes, bytes};
}

Work add_work(double bytes) { return {0, 2 * bytes, bytes}; }

Work pass_work(double read, double written) { return {0, read, written}; }

Work embedding_work(int64_t rows, int64_t d_model, int64_t element, int tables) {
  const double bytes = double(rows * d_model * element);
  return {0, tables * bytes, bytes};
}

Work embedding_added_gradient_work(int64_t rows, int64_t d_model, int64_t element, int tables) {
  const double gradient = float_bytes * double(rows * d_model);
  return {0, double(rows * d_model * element) + tables * gradient, tables * gradient};
}

Work embedding_gradient_work(int64_t rows, int64_t d_model, int64_t element, int64_t table_rows) {
  return {0, double(rows * d_model * element), float_bytes * double(table_rows * d_model)};
}

Work gradient_norm_work(int64_t count, int64_t element) { return {0, double(count * element), 0}; }

Work update_work(int64_t count, const UpdatedElement& e) {
  const auto weight = double(size_of(e.weight));
  const double read = (e.master == float_bytes ? 0 : weight) + e.master + e.gradient + e.moments;
  return {0, read * double(count), (weight + e.master + e.moments) * double(count)};
}

Work muon_work(int64_t rows, int64_t cols, int64_t iterations) {
  const auto side = double(std::min(rows, cols)), other = double(std::max(rows, cols));
  return {double(iterations) * (4 * side * side * other + 2 * side * side * side), 0, 0};
}

Work adafactor_work(int64_t count, int64_t rounded, bool first_moment) {
  const double moment = first_moment ? float_bytes : 0;
  return {0, (2 * float_bytes + moment) * double(count), (float_bytes + moment + double(rounded)) * double(count)};
}

Work parameter_scales_work(int64_t count) { return {0, float_bytes * double(count), 0}; }

}  // namespace mixtape
