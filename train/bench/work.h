// What an operation computes and moves at least, and the time that this takes at the machine's limits.
#pragma once

#include <string>
#include <string_view>

#include "core/model/spec.h"

namespace mixtape {

struct Work {
  double flops = 0, read = 0, written = 0;  // FLOP and bytes
  bool known() const { return flops > 0 || read + written > 0; }
};

// FLOP/s and bytes a second, measured in the same run.
struct Limits {
  double fma = 0, fma_one = 0, read = 0, copy = 0;
};
Limits measure_limits();

// The longer of arithmetic and memory traffic. What stays in caches can be faster.
double least_seconds(const Work& work, const Limits& limits);

// The work of one row of operations of a tape, by the tape's names, in one micro-batch: all linear layers together,
// for example. `rows` tokens in sequences of `length`, elements of `element` bytes, gradients of parameters in float32.
// Unknown (all 0) for names that are none of the model's.
Work model_work(const ModelSpec& spec, int64_t rows, int64_t length, int64_t element, std::string_view operation,
                bool backward);

}  // namespace mixtape
