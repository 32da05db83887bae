// Activations on their own, and gated ones.
#pragma once

#include "core/backend.h"
#include "core/tape.h"

namespace mixtape {

// gelu(x) = x/2 (1 + erf(x/sqrt 2)); gelu_tanh(x) = x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)));
// silu(x) = x / (1 + exp(-x)); relu(x) = max(x, 0), with derivative 0 at 0; tanh (the pooler of BERT).
enum class Unary { none, relu, gelu, gelu_tanh, silu, tanh };

// y = act(x), elementwise; any shape.
Tensor activation(Tape& tape, const Tensor& x, Unary kind);

// y[r, c] = act(x[r, c]) * x[r, F + c]: gate first, then up. x: [rows, 2 F]; y: [rows, F].
// swiglu is silu, geglu is gelu, geglu_tanh is gelu_tanh.
Tensor gated_activation(Tape& tape, const Tensor& x, Unary kind);

// What a device provides.
struct Activate {
  Tensor y, x;
  Unary kind;
};
struct ActivateBackward {
  Grad dx;
  Tensor dy, x;
  Unary kind;
};

class ActivationKernels {
 public:
  virtual ~ActivationKernels() = default;
  virtual void activation(const Activate&) = 0;
  virtual void activation_backward(const ActivateBackward&) = 0;
  virtual void gated(const Activate&) = 0;
  virtual void gated_backward(const ActivateBackward&) = 0;
};

}  // namespace mixtape
