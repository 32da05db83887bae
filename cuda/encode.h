// Tensors as codes of 8-bit floats, for products of them (products.h).
#pragma once

#include "cuda/backend.h"

namespace mixtape::cuda {

// codes[r, c] = transposed[c, r] = the code nearest to x[r, c] / s, saturating; NaN where x is not finite. e4m3 or
// e5m2; either may be absent. s is given[0], or where that is absent or 0 code_scale of the largest magnitude of x;
// `scale` gets it. amax[0], where there is one, is raised as Quantise (core/ops/cast.h) does. x: fp16 or bf16, as
// can_encode wants it; given, scale, amax: float32 [1].
struct Encode {
  Tensor codes, transposed, scale, x;
  Tensor given = {}, amax = {};
};
void encode(CudaBackend& backend, const Encode& a);
// Multiples of 16 rows and columns, which begin at multiples of 16 bytes: what products of codes demand, too.
bool can_encode(const Tensor& x);

}  // namespace mixtape::cuda
