// Conversions between element types, and sums of tensors.
#pragma once

#include <array>

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

// y = s c, c the code nearest to x / s: what a product with 8-bit operands reads. codes: e4m3, e5m2 or int8,
// saturating; infinities and NaN stay what they are. x, y: of one shape and one type of fp32, fp16 and bf16; y may be
// x. s is scale[0]. Where scale is absent, or 0 since nothing is known yet, s is code_scale (core/base/code_scale.h) of
// the largest magnitude of x, or with `by_rows` of each row's. amax[0], where there is one, is raised to the largest
// magnitude of x, NaN being above infinity. scale, amax: float32 [1].
struct Quantise {
  Tensor y, x;
  DType codes = DType::e4m3;
  Tensor scale = {}, amax = {};
  bool by_rows = false;
};
// The scales of the next step, of n operands (delayed scaling, as in NVIDIA's Transformer Engine), where state->finite:
//   history[i, updates mod H] = amax[i], 0 if that is not finite;  scale[i] = code_scale(codes[i mod 3], largest of
//   history[i], margin)
// In any case amax = 0, so that a skipped step leaves no trace. float32; scale, amax: [n]; history: [n, H].
struct UpdateScales {
  const StepState* state;
  Tensor scale, amax, history;
  std::array<DType, 3> codes;
  int margin = 0;
};

class CastKernels {
 public:
  virtual ~CastKernels() = default;
  virtual void convert(const Convert&) = 0;
  virtual void add(const Add&) = 0;
  virtual void abs_max(const AbsMax&) = 0;
  virtual void quantise(const Quantise&) = 0;
  virtual void update_scales(const UpdateScales&) = 0;
};

}  // namespace mixtape
