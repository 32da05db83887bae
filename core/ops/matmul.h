// Linear layers: y = act(x W^T + b).
//
// Weights are [out, in], row-major, as everywhere in PyTorch but GPT-2's own files. The activation is fused into the
// operation, because a matmul's result is cheapest to transform while it is still in cache.
#pragma once

#include "core/backend.h"
#include "core/ops/activation.h"
#include "core/tape.h"

namespace mixtape {

// y[r, o] = act(sum_i x[r, i] * weight[o, i] + bias[o]); bias may be absent.
// x: [rows, in]; weight: [out, in]; bias: [out]; y: [rows, out]; all of one type. `Unary::none` means no activation.
Tensor linear(Tape& tape, const Tensor& x, const Tensor& weight, const Tensor& bias, Unary activation = Unary::none);

// Which operands of a linear layer are rounded through 8-bit codes, and how (Quantise, core/ops/cast.h).
struct OperandCodes {
  DType operands = DType::e4m3;  // of inputs and weights, in forward and backward
  DType gradient = DType::e5m2;  // of the output's gradient; a wider type: that is not rounded
  bool by_rows = false;          // each row of an input and of a weight has its own scale
};
// y = Q(x) Q(W)^T + b, and in backward with g = Q(dy), as if rounding were the identity (straight through):
//   dx = g Q(W); dW = g^T Q(x); db = column sums of dy
// The products of codes are exact in float32, so that a device may multiply them or what they stand for, which differs
// in the order of additions alone. scale, amax: of x, W and dy, float32 [3], or absent; in training amax is raised.
Tensor quantised_linear(Tape& tape, const Tensor& x, const Tensor& weight, const Tensor& bias,
                        const OperandCodes& codes, const Tensor& scale = {}, const Tensor& amax = {});

// A linear layer whose weight is kept as codes, for inference: there is no gradient.
//   y[r, o] = act(s[r] S[o] sum_i q[r, i] codes[o, i] + bias[o])
//   s[r] = code_scale(i8, max_i |x[r, i]|);   q[r, i] = x[r, i] / s[r], rounded to nearest even
// The sum is exact, in int32, which `in` of at most most_int8_inputs ensures; the rest is float32 and rounded to y's
// type once. So a row's bits depend on neither the other rows nor the device's order of work. A row with a number that
// is not finite gives NaN. codes: int8 [out, in]; scale: float32 [out]; x, bias and y as in `linear`.
// Differs from quantised_linear with `by_rows` of codes times S in that there s q and S codes are rounded to x's type.
constexpr int64_t most_int8_inputs = 1 << 17;  // times 127 * 128 is below 2^31
Tensor linear_int8(Tape& tape, const Tensor& x, const Tensor& codes, const Tensor& scale, const Tensor& bias,
                   Unary activation = Unary::none);

// What a device provides.
struct Linear {
  Tensor y;
  Tensor pre;  // before the activation, kept for backward; absent where there is no activation or no gradient
  Tensor x, weight, bias;
  Unary activation = Unary::none;
  // y will be made again from `pre` by ActivationKernels::activation, and must have the bits that this gives.
  bool y_is_remade = false;
};
// du = dy * act'(pre); dx = du W; dweight = du^T x; dbias = column sums of du. dweight and dbias may be fp32 while the
// others are narrower. `dy` may be overwritten by du where `dy_is_scratch`.
struct LinearBackward {
  Grad dx, dweight, dbias;
  Tensor dy, pre, x, weight;
  Unary activation = Unary::none;
  bool dy_is_scratch = false;
};

struct LinearInt8 {
  Tensor y, x, codes, scale, bias;
  Unary activation = Unary::none;
};

// quantised_linear where a device multiplies codes themselves: y, and dx and dweight alone of its backward. All but the
// results are as they were given.
struct LinearOfCodes {
  Tensor y, x, weight, bias, scale, amax;
  OperandCodes codes;
};
struct LinearOfCodesBackward {
  Grad dx, dweight;
  Tensor dy, x, weight, scale, amax;
  OperandCodes codes;
};

class MatmulKernels {
 public:
  virtual ~MatmulKernels() = default;
  virtual void linear(const Linear&) = 0;
  virtual void linear_backward(const LinearBackward&) = 0;
  // The same function for few rows (decoding): bound by reading the weights once, and each row's bits are independent
  // of how many rows there are.
  virtual void linear_rows(const Linear&) = 0;
  virtual void linear_int8(const LinearInt8&) = 0;
  // False where it does not: nothing has been done then, and operands are to be rounded in their own type. Which it is
  // follows from types, shapes and addresses, for a layer's backward from its dy's, too.
  virtual bool linear_of_codes(const LinearOfCodes&) { return false; }
  virtual bool linear_of_codes_backward(const LinearOfCodesBackward&) { return false; }
};

}  // namespace mixtape
