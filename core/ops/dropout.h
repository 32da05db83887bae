// Dropout by counter: the mask is recomputed in backward and takes no memory.
//
// The probability is a multiple of 1/256: an element is dropped if its byte of Philox output is below `threshold`
// (p = threshold / 256), and kept ones are scaled by 1 / (1 - p). Element e of the tensor [rows, cols], counted
// row-major, has byte e % 16 (little-endian over the four words) of philox(key, e / 16, site, Purpose::dropout).
#pragma once

#include "core/backend.h"
#include "core/tape.h"

namespace mixtape {

// k in p = k / 256, the nearest to what was asked for.
int dropout_threshold(double p);

// y = x * mask / (1 - p). Returns x itself where threshold is 0 or the tape does not train. `first_element`: of a part
// of a tensor, rows that follow one another, the number of its first element in the whole, which elements are counted
// by.
Tensor dropout(Tape& tape, const Tensor& x, int threshold, int64_t first_element = 0);

// What a device provides; the same function serves backward, with dy for x.
struct Dropout {
  Grad y;
  Tensor x;
  int threshold;
  uint32_t site;
  const StepState* state;
  int64_t first_element = 0;
};

class DropoutKernels {
 public:
  virtual ~DropoutKernels() = default;
  virtual void dropout(const Dropout&) = 0;
};

}  // namespace mixtape
