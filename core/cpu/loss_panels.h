// A panel of logits: some rows of some columns of the vocabulary, which a task makes and uses while they are in cache.
// Every function is a sequential pass over it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/base/dtype.h"

namespace mixtape {

// What a panel knows of a row.
struct PanelStats {
  float max, sum, sum_z;  // sum of exp(z - max); sum of z, for label smoothing
  float factor;           // gradient of the loss by z = factor * exp(z - max) - the target's part
  int32_t best;           // where in the panel z is max first, if that was asked for
};

struct Panel {
  int64_t rows, cols;
  float* z;                // [rows, cols], first the bare products
  int64_t stride;          // of z
  const std::byte* bias;   // of type `type`, or null
  const int32_t* targets;  // of the rows, less the panel's first column: in [0, cols) if the panel holds it
  PanelStats* stats;       // [rows], `stats_stride` apart
  int64_t stats_stride;
  float* target_z;  // [rows], written where the panel holds the target
  DType type;
  float logit_scale;
  int64_t first_col;
  bool finds_best;
};

struct PanelGradient {
  float uniform, target;  // what is subtracted from every element, and from the target's besides
  std::byte* g;           // z itself, or bf16
  int64_t stride;
  DType type;
  float* column_sums;  // added to; may be null
};

// From bare products: z = (z + bias) logit_scale, its statistics, and then exp(z - max) in its place.
void exponentials(const Panel& p);
// g = factor exp(z - max), less the target's part, of a panel that exponentials() has left and whose factors are known.
void panel_gradient(const Panel& p, const PanelGradient& a);

}  // namespace mixtape
