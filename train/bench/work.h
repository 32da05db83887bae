// What operations compute and move at least, and the time that this takes at the machine's limits.
//
// The one place that knows: `bench ops` asks by shape, and model_work.h adds up what a model's operations do. Bytes are
// of tensors that must come from memory and go there; what a kernel reads twice or keeps in caches is its own affair.
#pragma once

#include <cstdint>
#include <string>

#include "core/base/dtype.h"

namespace mixtape {

struct Work {
  double flops = 0, read = 0, written = 0;  // FLOP and bytes
  bool known() const { return flops > 0 || bytes() > 0; }
  double bytes() const { return read + written; }
  Work& operator+=(const Work& other) {
    flops += other.flops, read += other.read, written += other.written;
    return *this;
  }
  friend Work operator+(Work a, const Work& b) { return a += b; }
  friend Work operator*(double n, const Work& w) { return {n * w.flops, n * w.read, n * w.written}; }
};

// FLOP/s and bytes a second, measured in the same run: of multiply-adds in float32 on the CPU, of matrix products in
// `type` on a device (device_limits.h).
struct Limits {
  double fma = 0, fma_one = 0, read = 0, copy = 0;
  std::string device = {};  // empty: the CPU
  DType type = DType::f32;
};
Limits measure_limits();
// The higher of each. Neighbours on a shared machine take memory bandwidth too, and no probe says when.
Limits best_of(const Limits& a, const Limits& b);

// The longer of arithmetic and memory traffic. What stays in caches can be faster.
double least_seconds(const Work& work, const Limits& limits);
// Which of the two that is.
bool bound_by_arithmetic(const Work& work, const Limits& limits);

// Below, `element` is the size of an element in bytes, and gradients of parameters are float32. Operations by their
// names on the tape.

// y = x W^T on `rows` rows: `in` inputs, `out` outputs. A bias and an activation cost next to nothing.
struct LinearSize {
  int64_t rows = 0, in = 0, out = 0;
};
Work linear_work(const LinearSize& size, int64_t element);
// The same where a weight is a byte.
Work linear_int8_work(const LinearSize& size, int64_t element);
Work linear_input_gradient_work(const LinearSize& size, int64_t element);
Work linear_weight_gradient_work(const LinearSize& size, int64_t element);

struct AttentionSize {
  int64_t queries = 0, keys = 0;  // rows
  double seen = 0;                // keys that a query sees, on average
  int64_t heads = 0, kv_heads = 0, head_dim = 0;
};
// The average over a segment of `length` tokens; window 0: no limit.
double keys_seen(int64_t length, bool causal, int64_t window);
// Two products forward and five backward, where the scores are made again.
Work attention_work(const AttentionSize& size, int64_t element, bool backward);

// `gradients`: forward delivers them, with the logits' gradient and both products with it.
Work cross_entropy_work(int64_t rows, int64_t d_model, int64_t vocabulary, int64_t element, bool gradients);

// A few operations an element, so bytes alone count. `bytes`: of one tensor of rows, a gated activation's output.
Work norm_work(double bytes, bool backward);
Work residual_norm_work(double bytes, bool backward);
Work activation_work(double bytes, bool backward);
Work gated_activation_work(double bytes, bool backward);
Work add_work(double bytes);
// One tensor in and one out, of these bytes: dropout, the rotated columns of rope, a cast; both ways.
Work pass_work(double read, double written);
// Vectors of `tables` tables (tokens, positions) for `rows` tokens.
Work embedding_work(int64_t rows, int64_t d_model, int64_t element, int tables);
// Adds to `rows` rows a table, or writes tables of `table_rows` rows together.
Work embedding_added_gradient_work(int64_t rows, int64_t d_model, int64_t element, int tables);
Work embedding_gradient_work(int64_t rows, int64_t d_model, int64_t element, int64_t table_rows);

Work gradient_norm_work(int64_t count, int64_t element);
// An update that treats each element alone, by what an element has: weight, gradient and moments are read, weight and
// moments written, a float32 master in place of the weight it is read for.
struct UpdatedElement {
  DType weight = DType::f32;
  double master = 0, gradient = 4, moments = 8;  // bytes; master 2: a remainder, read beside the weight
};
Work update_work(int64_t count, const UpdatedElement& element);
// The matrix products of Muon for one matrix.
Work muon_work(int64_t rows, int64_t cols, int64_t iterations);
// Adafactor: reads w and g and writes w; of moments only a first one counts, as rows and columns are few.
Work adafactor_work(int64_t count, int64_t rounded, bool first_moment);
Work parameter_scales_work(int64_t count);

}  // namespace mixtape
