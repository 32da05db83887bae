// Conversions between element types, and sums of tensors.
#pragma once

#include "core/backend.h"
#include "core/tape.h"

namespace mixtape {

// y = x in another type, rounded to nearest even.
Tensor cast(Tape& tape, const Tensor& x, DType dtype);

// y = a + scale * b, elementwise, of one shape and type.
Tensor add(Tape& tape, const Tensor& a, const Tensor& b, float scale = 1);

// What a device provides. Convert: y (or y += ) scale * x, any two of fp32, fp16, bf16; and fp32, fp16, bf16 to and
// from e4m3, e5m2 (saturating) and int8 (rounded to nearest even, clamped to [-127, 127]).
// `amax`, where there is one, gets the largest magnitude of x, which is fp32, fp16 or bf16 then, as AbsMax says, from
// the same pass: the next scale follows from it.
struct Convert {
  Grad y;
  Tensor x;
  float scale = 1;
  Tensor amax = {};
};
struct Add {
  Tensor y, a, b;
};
// amax[0] = max |x|, float32; NaN if any element is NaN.
struct AbsMax {
  Tensor amax, x;
};

class CastKernels {
 public:
  virtual ~CastKernels() = default;
  virtual void convert(const Convert&) = 0;
  virtual void add(const Add&) = 0;
  virtual void abs_max(const AbsMax&) = 0;
};

}  // namespace mixtape
