// Normalisation of rows, alone or fused with the residual addition that comes before it.
//
//   layer norm: y = (h - mean(h)) * inv * weight + bias,  inv = 1 / sqrt(var(h) + eps)  (biased variance)
//   rms norm:   y = h * inv * weight,                     inv = 1 / sqrt(mean(h^2) + eps)
//
// x, residual, h, y: [rows, cols]; weight, bias: [cols], all of x's type (bias may be absent); mean, inv: [rows],
// float32 whatever the type. Sources: Ba, Kiros, Hinton, arXiv 1607.06450; Zhang, Sennrich, arXiv 1910.07467.
#pragma once

#include "core/backend.h"
#include "core/tape.h"

namespace mixtape {

Tensor layer_norm(Tape& tape, const Tensor& x, const Tensor& weight, const Tensor& bias, float eps);
Tensor rms_norm(Tape& tape, const Tensor& x, const Tensor& weight, float eps);

struct Residual {
  Tensor h;  // x + branch, rounded to the type: what the next layer adds to
  Tensor y;  // the norm of h
};
Residual residual_layer_norm(Tape& tape, const Tensor& x, const Tensor& branch, const Tensor& weight,
                             const Tensor& bias, float eps);
Residual residual_rms_norm(Tape& tape, const Tensor& x, const Tensor& branch, const Tensor& weight, float eps);

// What a device provides. With `branch` absent there is no addition: h is not written and the norm is of x.
// mean and inv are absent where no gradient is wanted; mean also for rms norm.
struct Norm {
  Tensor y, h, mean, inv;
  Tensor x, branch, weight, bias;
  float eps;
  bool center;  // layer norm; false: rms norm
};
// dx = dh + (gradient of the norm with respect to h) * dy; dh is what flows into h past the norm, and may be absent.
// dx.tensor may be dh's memory. `h` is the norm's input (x where there is no branch).
struct NormBackward {
  Grad dx, dweight, dbias;
  Tensor dy, dh, h, weight, mean, inv;
  bool center;
};

class NormKernels {
 public:
  virtual ~NormKernels() = default;
  virtual void norm(const Norm&) = 0;
  virtual void norm_backward(const NormBackward&) = 0;
};

}  // namespace mixtape
