// The tables of rotary positions: frequencies, with the published ways of stretching them to longer contexts.
#pragma once

#include <vector>

#include "core/model/spec.h"

namespace mixtape {

struct RotaryFrequencies {
  std::vector<double> inverse;  // f_c = theta^(-2c/r), c = 0 .. r/2 - 1, scaled
  double attention_factor = 1;  // yarn: rotated queries and keys are multiplied by it
};

// rotary_dim: how many columns of a head are rotated. `length`: the sequence length in use, which only `dynamic` heeds.
//   linear  f / factor                                               (Chen et al., arXiv 2306.15595)
//   dynamic theta grows with the length beyond max_positions          (the "NTK-aware" rule, as in transformers)
//   yarn    a ramp between f and f / factor by rotations per context  (Peng et al., arXiv 2309.00071)
//   llama3  the same idea with a smooth band                          (the Llama 3.1 release)
RotaryFrequencies rotary_frequencies(const ModelSpec& spec, int64_t rotary_dim, int64_t length);

// Rows 0 .. positions - 1 of [positions, rotary_dim]: cosines of all angles, then sines, computed in float64.
std::vector<float> rotary_table(const ModelSpec& spec, int64_t rotary_dim, int64_t positions);

// How many columns of a head are rotated; even.
inline int64_t rotary_dim(const ModelSpec& spec) {
  return int64_t(double(spec.head_width()) * spec.rope_fraction) / 2 * 2;
}

}  // namespace mixtape
