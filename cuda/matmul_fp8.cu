// Linear layers whose operands are codes of 8-bit floats, on GPUs that multiply those (sm_89 and later).
//
// Such GPUs take both operands with the inner dimension contiguous, so backward wants W, x and dy by columns, too: each
// operand is coded where it is needed, by rows, by columns or both, in one pass over its 2 bytes an element. Products
// are the library's, at twice the rate of bf16, and read half of the bytes. docs/kernels/matmul.md.
#include "cuda/encode.h"

namespace mixtape {
namespace cuda {
namespace {

// An operand of a layer, in the order of their scales.
struct Operand {
  Tensor codes, transposed, scale;
};
enum Place : int { of_input, of_weight, of_gradient };

Tensor part(const Tensor& three, Place place) { return three ? three.columns(place, 1) : Tensor(); }

struct Wanted {
  bool rows, columns;
};
Operand coded(CudaBackend& backend, const Tensor& x, DType codes, Wanted wanted, const Tensor& given,
              const Tensor& amax) {
  Operand o{.scale = backend.workspace({1}, DType::f32)};
  if (wanted.rows) o.codes = backend.workspace(x.shape(), codes);
  if (wanted.columns) o.transposed = backend.workspace({x.cols(), x.rows()}, codes);
  encode(backend, {o.codes, o.transposed, o.scale, x, given, amax});
  return o;
}

bool takes(CudaBackend& backend, const Tensor& x, const Tensor& weight, const OperandCodes& codes) {
  return codes.operands == DType::e4m3 && codes.gradient == DType::e5m2 && !codes.by_rows && size_of(x.dtype()) == 2 &&
         weight.dtype() == x.dtype() && can_encode(x) && can_encode(weight) && backend.products().multiplies_codes();
}

}  // namespace
}  // namespace cuda

bool CudaMatmul::linear_of_codes(const LinearOfCodes& a) {
  if (!cuda::takes(backend_, a.x, a.weight, a.codes)) return false;
  const auto operand = [&](const Tensor& t, cuda::Place place) {
    return cuda::coded(backend_, t, a.codes.operands, {.rows = true, .columns = false}, cuda::part(a.scale, place),
                       cuda::part(a.amax, place));
  };
  const cuda::Operand x = operand(a.x, cuda::of_input), weight = operand(a.weight, cuda::of_weight);
  const Tensor scratch = backend_.workspace({backend_.products().workspace_bytes()}, DType::u8);
  if (backend_.planning()) return true;
  backend_.products().multiply({.c = a.y,
                                .a = x.codes,
                                .b = weight.codes,
                                .bias = a.bias,
                                .a_scale = x.scale,
                                .b_scale = weight.scale,
                                .transpose_b = true},
                               scratch);
  return true;
}

bool CudaMatmul::linear_of_codes_backward(const LinearOfCodesBackward& a) {
  if (!cuda::takes(backend_, a.x, a.weight, a.codes) || !cuda::can_encode(a.dy)) return false;
  const cuda::Operand dy =
      cuda::coded(backend_, a.dy, a.codes.gradient, {.rows = bool(a.dx), .columns = bool(a.dweight)},
                  cuda::part(a.scale, cuda::of_gradient), cuda::part(a.amax, cuda::of_gradient));
  const auto by_columns = [&](const Tensor& t, cuda::Place place) {
    return cuda::coded(backend_, t, a.codes.operands, {.rows = false, .columns = true}, cuda::part(a.scale, place), {});
  };
  cuda::Operand x, weight;
  if (a.dx) weight = by_columns(a.weight, cuda::of_weight);
  if (a.dweight) x = by_columns(a.x, cuda::of_input);
  const Tensor scratch = backend_.workspace({backend_.products().workspace_bytes()}, DType::u8);
  if (backend_.planning()) return true;
  const auto multiply = [&](const Grad& c, const Tensor& of_dy, const cuda::Operand& with) {
    if (c)
      backend_.products().multiply({.c = c.tensor,
                                    .a = of_dy,
                                    .b = with.transposed,
                                    .a_scale = dy.scale,
                                    .b_scale = with.scale,
                                    .transpose_b = true,
                                    .accumulate = c.accumulates()},
                                   scratch);
  };
  multiply(a.dx, dy.codes, weight);
  multiply(a.dweight, dy.transposed, x);
  return true;
}

}  // namespace mixtape
