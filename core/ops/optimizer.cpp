#include "core/ops/optimizer.h"

namespace mixtape {

void gradient_norm(Backend& backend, const GradientNorm& a) {
  if (a.gradients.dtype() != DType::f32)
    throw Error("gradient_norm: gradients are {}, expected fp32", a.gradients.dtype());
  backend.optimizer().gradient_norm(a);
}

void adamw(Backend& backend, const AdamW& a) {
  const int64_t n = a.weights.count();
  for (const Tensor& t : {a.master, a.gradients, a.m, a.v}) {
    if (t && t.count() != n) throw Error("adamw: a buffer has {} elements, the weights {}", t.count(), n);
    if (t && t.dtype() != DType::f32) throw Error("adamw: a state buffer is {}, expected fp32", t.dtype());
  }
  if (a.weights.dtype() != DType::f32 && !a.master)
    throw Error("adamw: {} weights without a master copy", a.weights.dtype());
  backend.optimizer().adamw(a);
}

}  // namespace mixtape
