#include "core/ops/optimizer.h"

namespace mixtape {
namespace {

// What every update rule asks of its flat buffers.
void check_buffers(const char* op, const Tensor& weights, const Tensor& master,
                   std::initializer_list<const Tensor*> buffers) {
  const int64_t n = weights.count();
  for (const Tensor* t : buffers) {
    if (*t && t->count() != n) throw Error("{}: a buffer has {} elements, the weights {}", op, t->count(), n);
    if (*t && t->dtype() != DType::f32) throw Error("{}: a state buffer is {}, expected fp32", op, t->dtype());
  }
  if (weights.dtype() != DType::f32 && !master)
    throw Error("{}: {} weights without a master copy", op, weights.dtype());
}

void check_scales(const char* op, const Tensor& scales, int64_t least_count) {
  if (!scales) return;
  if (scales.dtype() != DType::f32 || scales.count() < least_count)
    throw Error("{}: scales are {} {}, expected fp32 for {} tensors", op, scales.dtype(), scales.shape(), least_count);
}

}  // namespace

void gradient_norm(Backend& backend, const GradientNorm& a) {
  if (a.gradients.dtype() != DType::f32)
    throw Error("gradient_norm: gradients are {}, expected fp32", a.gradients.dtype());
  backend.optimizer().gradient_norm(a);
}

void parameter_scales(Backend& backend, const ParameterScales& a) {
  if (a.weights.dtype() != DType::f32)
    throw Error("parameter_scales: weights are {}, expected fp32", a.weights.dtype());
  check_scales("parameter_scales", a.scales, a.n_tensors);
  backend.optimizer().parameter_scales(a);
}

void adamw(Backend& backend, const AdamW& a) {
  check_buffers("adamw", a.weights, a.master, {&a.master, &a.gradients, &a.m, &a.v});
  int64_t tensors = 0;
  for (int64_t i = 0; a.scales && i < a.n_ranges; ++i) tensors = std::max<int64_t>(tensors, a.ranges[i].tensor + 1);
  check_scales("adamw", a.scales, tensors);
  backend.optimizer().adamw(a);
}

void adafactor(Backend& backend, const Adafactor& a) {
  check_buffers("adafactor", a.weights, a.master, {&a.master, &a.gradients, &a.m});
  check_scales("adafactor", a.scales, a.n_tensors);
  if (a.v.dtype() != DType::f32) throw Error("adafactor: the second moments are {}, expected fp32", a.v.dtype());
  for (int64_t i = 0; i < a.n_tensors; ++i) {
    const UpdateTensor& t = a.tensors[i];
    const int64_t end = std::max(t.column_moments + t.cols, t.rows > 1 ? t.row_moments + t.rows : 0);
    if (end > a.v.count())
      throw Error("adafactor: {} second moments, but tensor {} has its up to number {}", a.v.count(), i, end);
  }
  backend.optimizer().adafactor(a);
}

void finish_micro_batch(Backend& backend, const FinishMicroBatch& a) {
  if (a.mean.dtype() != DType::f32 || a.mean.count() != 1)
    throw Error("finish_micro_batch: the loss is {} {}, expected fp32 [1]", a.mean.dtype(), a.mean.shape());
  backend.optimizer().finish_micro_batch(a);
}

void finish_attempt(Backend& backend, const FinishAttempt& a) { backend.optimizer().finish_attempt(a); }

}  // namespace mixtape
