// Cross-entropy from hidden states, a chunk of rows at a time.
//
// A chunk's logits are a product in float32. A block a row then reads them twice, for the sum of exponentials and for
// the gradient, which is written in the operands' type (over the logits, where that is float32): 8 V bytes read and
// V sizeof(T) written a row, two exponentials a logit, bound by memory; the products around it are 2 rows V d FLOPs
// forward and 4 rows V d backward. Rows without a target cost no exponentials, and a row of zeros in the gradient.
//
// How many rows have a target is known on the device alone, so the products are made for all rows; where few have one
// (masked LM), the model gathers them before.
#include "core/step_state.h"
#include "cuda/column_sums.h"
#include "cuda/device/reduce.h"

namespace mixtape {
namespace cuda {
namespace {

constexpr int row_threads = 256, mean_threads = 1024;

template <class T>
struct RowsOfLoss {
  Rows<const float> z;  // bare products
  Rows<T> g;            // absent where no gradient is wanted; may be z itself
  const T* bias;
  const int32_t* targets;
  float *row_loss, *row_nll;
  int32_t* predictions;  // may be null
  const StepState* state;
  int64_t vocabulary;
  float logit_scale, smoothing;

  __device__ float logit(int64_t row, int64_t v) const {
    return (z[row][v] + (bias ? to_float(bias[v]) : 0.f)) * logit_scale;
  }
};

struct RowStats {
  float max, sum, sum_z;  // sum of exp(z - max); sum of z, for label smoothing
};

// Of the calling thread's columns, in one pass.
template <class T>
__device__ inline RowStats stats_of(const RowsOfLoss<T>& a, int64_t row) {
  RowStats s{-INFINITY, 0, 0};
  for (int64_t v = threadIdx.x; v < a.vocabulary; v += row_threads) {
    const float z = a.logit(row, v);
    s.sum_z += z;
    if (z > s.max) {
      s.sum = s.sum * expf(s.max - z) + 1.f;
      s.max = z;
    } else {
      s.sum += expf(z - s.max);
    }
  }
  return s;
}

// The first column whose logit is `max`; 0 where none is (NaN). As floats, numbers of columns are exact: there are
// fewer than 2^24.
template <class T>
__device__ inline int64_t first_of_largest(const RowsOfLoss<T>& a, int64_t row, float max, float* scratch) {
  int64_t v = threadIdx.x;
  while (v < a.vocabulary && a.logit(row, v) != max) v += row_threads;
  const float first = -block_max(-float(v < a.vocabulary ? v : a.vocabulary), scratch);
  return first < float(a.vocabulary) ? int64_t(first) : 0;
}

template <class T>
__global__ void __launch_bounds__(row_threads) loss_rows_kernel(RowsOfLoss<T> a) {
  struct Storage {
    float scratch[warp_size];
  };
  Storage& s = shared_memory<Storage>();
  const int64_t row = blockIdx.x, target = a.targets[row];
  if (target < 0) {  // the whole block
    if (threadIdx.x == 0) a.row_loss[row] = 0;
    if (threadIdx.x == 0 && a.row_nll) a.row_nll[row] = 0;
    if (threadIdx.x == 0 && a.predictions) a.predictions[row] = -1;
    if (a.g)
      for (int64_t v = threadIdx.x; v < a.vocabulary; v += row_threads) a.g[row][v] = from_float<T>(0.f);
    return;
  }
  require(target < a.vocabulary, "cross_entropy: a target outside the vocabulary");
  const float target_z = a.logit(row, target);  // before the barriers: later its place holds a gradient
  const RowStats mine = stats_of(a, row);
  const float max = block_max(mine.max, s.scratch);
  const float sum = block_sum(mine.sum * expf(mine.max - max), s.scratch);
  const float log_sum = max + logf(sum);
  const float mean_z = a.smoothing != 0 ? block_sum(mine.sum_z, s.scratch) / float(a.vocabulary) : 0.f;
  if (threadIdx.x == 0) {
    a.row_loss[row] = log_sum - (1.f - a.smoothing) * target_z - a.smoothing * mean_z;
    if (a.row_nll) a.row_nll[row] = log_sum - target_z;
  }
  if (a.predictions) {
    const int64_t best = first_of_largest(a, row, max, s.scratch);
    if (threadIdx.x == 0) a.predictions[row] = int32_t(best);
  }
  if (!a.g) return;
  const float scale = a.state ? a.state->loss_scale * a.state->inverse_targets * a.logit_scale : a.logit_scale;
  const float uniform = a.smoothing / float(a.vocabulary);
  for (int64_t v = threadIdx.x; v < a.vocabulary; v += row_threads) {
    const float p = expf(a.logit(row, v) - log_sum) - uniform - (v == target ? 1.f - a.smoothing : 0.f);
    a.g[row][v] = from_float<T>(p * scale);
  }
}

// mean = sum of losses / targets, in an order that the number of rows fixes. One block.
__global__ void __launch_bounds__(mean_threads)
    mean_kernel(float* mean, const float* losses, int64_t rows, const StepState* state) {
  struct Storage {
    double scratch[warp_size];
  };
  Storage& s = shared_memory<Storage>();
  double sum = 0;
  for (int64_t r = threadIdx.x; r < rows; r += mean_threads) sum += double(losses[r]);
  sum = block_sum(sum, s.scratch);
  if (threadIdx.x == 0) *mean = float(sum * (state ? double(state->inverse_targets) : 1.0));
}

// Rows whose logits exist at a time, in chunks of equal size.
int64_t rows_per_chunk(int64_t rows, int64_t vocabulary, const LossSpec& spec) {
  constexpr int64_t logits = int64_t(64) << 20;
  const int64_t fit = std::max<int64_t>(logits / std::max<int64_t>(vocabulary, 1), 256);
  const int64_t most = std::max<int64_t>(1, spec.chunk_rows > 0 ? spec.chunk_rows : fit);
  const int64_t chunks = std::max<int64_t>(1, divide_up(rows, most));
  return std::max<int64_t>(1, divide_up(rows, chunks));
}

// The workspace of a call.
struct LossWorkspace {
  int64_t chunk;
  Tensor z, g, nll, dweight, bias_parts, products;

  LossWorkspace(CudaBackend& backend, const CrossEntropy& a)
      : chunk(rows_per_chunk(a.hidden.rows(), a.weight.rows(), a.spec)) {
    const int64_t vocabulary = a.weight.rows(), padded = divide_up(vocabulary, 8) * 8;
    const bool narrow = a.hidden.dtype() != DType::f32, gradients = a.dhidden || a.dweight || a.dbias;
    z = backend.workspace({chunk, padded}, DType::f32).columns(0, vocabulary);
    if (gradients) g = narrow ? backend.workspace({chunk, padded}, a.hidden.dtype()).columns(0, vocabulary) : z;
    if (a.nll && a.spec.label_smoothing != 0) nll = backend.workspace({a.hidden.rows()}, DType::f32);
    if (a.dweight && a.dweight.tensor.dtype() != DType::f32)
      dweight = backend.workspace({vocabulary, a.hidden.cols()}, DType::f32);
    if (a.dbias) bias_parts = backend.workspace({RowBlocks(chunk).count, vocabulary}, DType::f32);
    products = backend.workspace({backend.products().workspace_bytes()}, DType::u8);
  }
};

void loss_rows(Runtime& runtime, const CrossEntropy& a, const LossWorkspace& w, int64_t first, int64_t n) {
  dispatch<float, fp16, bf16>(a.hidden.dtype(), "cross_entropy", [&]<class T>() {
    launch(runtime, loss_rows_kernel<T>, dim3(unsigned(n)), dim3(row_threads), warp_size * sizeof(float),
           RowsOfLoss<T>{.z = rows_of<const float>(w.z),
                         .g = rows_of<T>(w.g),
                         .bias = data_of<T>(a.bias),
                         .targets = a.targets.data<int32_t>() + first,
                         .row_loss = a.row_loss.data<float>() + first,
                         .row_nll = w.nll ? w.nll.data<float>() + first : nullptr,
                         .predictions = a.predictions ? a.predictions.data<int32_t>() + first : nullptr,
                         .state = a.state,
                         .vocabulary = a.weight.rows(),
                         .logit_scale = a.spec.logit_scale,
                         .smoothing = a.spec.label_smoothing});
  });
}

// `later`: not the first chunk, whose gradients are then there to be added to.
void chunk_gradients(CudaBackend& backend, const CrossEntropy& a, const LossWorkspace& w, int64_t first, int64_t n,
                     bool later) {
  const Tensor g = w.g.slice(0, n), hidden = a.hidden.slice(first, n);
  if (a.dhidden)
    backend.products().multiply(
        {.c = a.dhidden.tensor.slice(first, n), .a = g, .b = a.weight, .accumulate = a.dhidden.accumulates()},
        w.products);
  if (a.dweight)
    backend.products().multiply({.c = w.dweight ? w.dweight : a.dweight.tensor,
                                 .a = g,
                                 .b = hidden,
                                 .transpose_a = true,
                                 .accumulate = later || (!w.dweight && a.dweight.accumulates())},
                                w.products);
  if (a.dbias)
    column_sums(backend.runtime(), {a.dbias.tensor, later ? Write::accumulate : a.dbias.write}, g,
                w.bias_parts.data<float>());
}

void mean_of(Runtime& runtime, const Tensor& mean, const Tensor& losses, const StepState* state) {
  launch(runtime, mean_kernel, dim3(1), dim3(mean_threads), warp_size * sizeof(double), mean.data<float>(),
         losses.data<float>(), losses.count(), state);
}

}  // namespace
}  // namespace cuda

void CudaLoss::cross_entropy(const CrossEntropy& a) {
  const cuda::LossWorkspace w(backend_, a);
  if (backend_.planning()) return;
  const int64_t rows = a.hidden.rows();
  for (int64_t first = 0; first < rows; first += w.chunk) {
    const int64_t n = std::min(w.chunk, rows - first);
    backend_.products().multiply(
        {.c = w.z.slice(0, n), .a = a.hidden.slice(first, n), .b = a.weight, .transpose_b = true}, w.products);
    cuda::loss_rows(backend_.runtime(), a, w, first, n);
    if (w.g) cuda::chunk_gradients(backend_, a, w, first, n, first > 0);
  }
  if (w.dweight) backend_.cast().convert({.y = a.dweight, .x = w.dweight});
  cuda::mean_of(backend_.runtime(), a.mean, a.row_loss, a.state);
  if (a.nll) cuda::mean_of(backend_.runtime(), a.nll, w.nll ? w.nll : a.row_loss, a.state);
}

}  // namespace mixtape
