// Linear layers: 2 rows in out FLOPs forward, twice as many backward. The products are a library's; what an epilogue
// can do costs no pass over memory: the bias, gelu_tanh (with the sums that backward needs) and, where nothing is kept,
// relu; backward the bias's gradient, as sums of an operand. Other activations are elementwise kernels on the result:
// 2 rows out sizeof(T) bytes more forward, 3 backward. docs/kernels/matmul.md.
//
// Decoding has kernels of its own: a warp takes one element of the result, so a row's bits do not depend on how many
// rows there are. Bound by reading the weights, out in sizeof(T) bytes, as long as they stay in the cache for all rows.
#include "cuda/column_sums.h"
#include "cuda/device/activations.h"
#include "cuda/device/reduce.h"

namespace mixtape {
namespace cuda {
namespace {

constexpr int warps_of_rows = 8;

template <class T>
struct LinearRowsOf {
  Rows<T> y, pre;
  Rows<const T> x, weight;
  const T* bias;
  int64_t in, out;
  Unary activation;
};

// Block (outputs, row).
template <class T, int N>
__global__ void __launch_bounds__(warps_of_rows* warp_size) linear_rows_kernel(LinearRowsOf<T> a) {
  const int64_t o = int64_t(blockIdx.x) * warps_of_rows + warp_id(), row = blockIdx.y;
  if (o >= a.out) return;  // a whole warp, and no barrier follows
  float sum = 0;
  for (int64_t i = lane_id() * N; i < a.in; i += warp_size * N) {
    float x[N], w[N];
    load(x, a.x[row] + i);
    load(w, a.weight[o] + i);
#pragma unroll
    for (int j = 0; j < N; ++j) sum += x[j] * w[j];
  }
  sum = warp_sum(sum);
  if (lane_id() != 0) return;
  sum += a.bias ? to_float(a.bias[o]) : 0.f;
  if (a.pre) a.pre[row][o] = from_float<T>(sum);
  a.y[row][o] = from_float<T>(activate(a.activation, sum));
}

Tensor room_for_products(CudaBackend& backend) {
  return backend.workspace({backend.products().workspace_bytes()}, DType::u8);
}

}  // namespace
}  // namespace cuda

void CudaMatmul::linear(const Linear& a) {
  const Tensor scratch = cuda::room_for_products(backend_);
  if (backend_.planning()) return;
  cuda::Product product{.c = a.y, .a = a.x, .b = a.weight, .bias = a.bias, .transpose_b = true};
  if (a.activation != Unary::none && !a.y_is_remade) {
    product.activation = a.activation, product.pre = a.pre;
    if (backend_.products().takes(product)) return backend_.products().multiply(product, scratch);
    product.activation = Unary::none, product.pre = {};
  }
  if (a.pre) product.c = a.pre;
  backend_.products().multiply(product, scratch);
  if (a.activation != Unary::none)
    backend_.activation().activation({.y = a.y, .x = product.c, .kind = a.activation});
  else if (a.pre)
    backend_.cast().convert({.y = {a.y, Write::overwrite}, .x = a.pre});
}

void CudaMatmul::linear_backward(const LinearBackward& a) {
  const Tensor scratch = cuda::room_for_products(backend_);
  Tensor du = a.dy, parts, bias_sums;
  if (a.activation != Unary::none && !a.dy_is_scratch) du = backend_.workspace(a.dy.shape(), a.dy.dtype());
  if (a.dbias) parts = backend_.workspace({cuda::RowBlocks(a.dy.rows()).count, a.dy.cols()}, DType::f32);
  // The epilogue stores sums in the type of dweight, and cannot add to what is there. Sums of 16 bits that are added or
  // widened would be rounded before that, too.
  const bool narrow = a.dweight && a.dweight.tensor.dtype() != DType::f32;
  const bool with_dweight =
      a.dbias && a.dweight && !(narrow && (a.dbias.accumulates() || a.dbias.tensor.dtype() == DType::f32));
  if (with_dweight && (a.dbias.accumulates() || a.dbias.tensor.dtype() != a.dweight.tensor.dtype()))
    bias_sums = backend_.workspace({a.dy.cols()}, a.dweight.tensor.dtype());
  if (backend_.planning()) return;
  cuda::Products& products = backend_.products();
  if (a.activation != Unary::none)
    backend_.activation().activation_backward(
        {.dx = {du, Write::overwrite}, .dy = a.dy, .x = a.pre, .kind = a.activation});
  if (a.dx) products.multiply({.c = a.dx.tensor, .a = du, .b = a.weight, .accumulate = a.dx.accumulates()}, scratch);
  bool summed = false;
  if (a.dweight) {
    cuda::Product product{
        .c = a.dweight.tensor, .a = du, .b = a.x, .transpose_a = true, .accumulate = a.dweight.accumulates()};
    if (with_dweight) product.a_sums = bias_sums ? bias_sums : a.dbias.tensor;
    summed = with_dweight && products.takes(product);
    if (!summed) product.a_sums = {};
    products.multiply(product, scratch);
  }
  if (summed && bias_sums) backend_.cast().convert({.y = a.dbias, .x = bias_sums});
  if (a.dbias && !summed) cuda::column_sums(backend_.runtime(), a.dbias, du, parts.data<float>());
}

void CudaMatmul::linear_rows(const Linear& a) {
  if (backend_.planning() || a.x.rows() == 0) return;
  const int64_t in = a.x.cols(), out = a.weight.rows();
  dispatch<float, fp16, bf16>(a.x.dtype(), "linear_rows", [&]<class T>() {
    const cuda::LinearRowsOf<T> rows{cuda::rows_of<T>(a.y),
                                     cuda::rows_of<T>(a.pre),
                                     cuda::rows_of<const T>(a.x),
                                     cuda::rows_of<const T>(a.weight),
                                     cuda::data_of<const T>(a.bias),
                                     in,
                                     out,
                                     a.activation};
    cuda::dispatch_vectors<T>({2, in}, {a.x, a.weight}, [&]<int N>() {
      cuda::launch(backend_.runtime(), cuda::linear_rows_kernel<T, N>,
                   dim3(unsigned(cuda::divide_up(out, cuda::warps_of_rows)), unsigned(a.x.rows())),
                   dim3(cuda::warps_of_rows * cuda::warp_size), 0, rows);
    });
  });
}

}  // namespace mixtape
