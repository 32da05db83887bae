// Rotary position embedding.
//
// Each head's first `rotary_dim` columns are rotated in pairs (c, c + rotary_dim / 2), as Hugging Face's rotate_half:
//   y[c]       = x[c] cos(p f_c) - x[c + r/2] sin(p f_c)
//   y[c + r/2] = x[c + r/2] cos(p f_c) + x[c] sin(p f_c),   f_c = theta^(-2c/r), scaled as the model's rope_scaling
//   says.
// Source: Su et al., arXiv 2104.09864. Its gradient is the rotation by -p.
#pragma once

#include "core/backend.h"
#include "core/tape.h"

namespace mixtape {

struct RopeSpec {
  int64_t heads = 0;  // how many heads, from column 0, are rotated (queries and keys); the rest is copied
  int64_t head_dim = 0;
  int64_t rotary_dim = 0;  // even, at most head_dim
};

// x, y: [rows, width], width >= heads * head_dim; position: int32 [rows]; table: float32 [P, rotary_dim], row p holding
// cos(p f_c) for all c, then sin(p f_c). x's memory is reused where nobody else holds it.
Tensor rope(Tape& tape, Tensor x, const Tensor& position, const Tensor& table, const RopeSpec& spec);

// What a device provides. y's memory may be x's.
struct Rope {
  Grad y;
  Tensor x, position, table;
  RopeSpec spec;
  bool inverse = false;
};

class PositionKernels {
 public:
  virtual ~PositionKernels() = default;
  virtual void rope(const Rope&) = 0;
};

}  // namespace mixtape
