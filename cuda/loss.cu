// Cross-entropy from hidden states, a chunk of rows at a time.
//
// A chunk's logits are a product in float32. A block a row then reads them twice, for the sum of exponentials and for
// the gradient, which is written in the operands' type (over the logits, where that is float32): 8 V bytes read, the
// second time mostly from the L2 cache, and V sizeof(T) written a row, two exponentials a logit, bound by memory; the
// products around it are 2 rows V d FLOPs forward and 4 rows V d backward. Rows without a target cost no exponentials,
// and a row of zeros in the gradient.
//
// How many rows have a target is known on the device alone, so the products are made for all rows; where few have one
// (masked LM), the model gathers them before.
//
// Where ranks share out the vocabulary the block's two passes are two kernels, with an exchange of 20 bytes a row and
// rank between them.
#include <vector>

#include "core/shards.h"
#include "core/step_state.h"
#include "cuda/column_sums.h"
#include "cuda/device/reduce.h"

namespace mixtape {
namespace cuda {
namespace {

// Logits are read four at a time: a row begins at a multiple of 16 bytes and is padded to whole vectors
// (LossWorkspace), so what is behind the end of the vocabulary may be read and written, and is nobody's.
constexpr int logits_a_load = 4, most_row_threads = 1024, mean_threads = 1024;
// Kernels of rows ask for one block a multiprocessor at least: left to choose, nvcc makes room for two and spills.

template <class T>
struct RowsOfLoss {
  Rows<const float> z;  // bare products
  Rows<T> g;            // absent where no gradient is wanted; may be z itself
  const T* bias;
  const int32_t* targets;
  float *row_loss, *row_nll;
  int32_t* predictions;  // may be null
  const StepState* state;
  int64_t vocabulary, first_token, all_tokens;  // those here are some of all
  float logit_scale, smoothing;

  __device__ float logit(int64_t row, int64_t v) const {
    return (z[row][v] + (bias ? to_float(bias[v]) : 0.f)) * logit_scale;
  }
  // Those of columns v to v + 3, where there are any; else below all numbers.
  __device__ void logits(float (&x)[logits_a_load], int64_t row, int64_t v) const {
    load(x, z[row] + v);
#pragma unroll
    for (int i = 0; i < logits_a_load; ++i) {
      const bool there = v + i < vocabulary;
      x[i] = there ? (x[i] + (bias ? to_float(bias[v + i]) : 0.f)) * logit_scale : -INFINITY;
    }
  }
};

__device__ inline int64_t first_column() { return int64_t(threadIdx.x) * logits_a_load; }
__device__ inline int64_t column_step() { return int64_t(blockDim.x) * logits_a_load; }

struct ThreadStats {
  float max, sum, sum_z;  // sum of exp(z - max); sum of z, for label smoothing
};

// Of the calling thread's columns, in one pass.
template <class T>
__device__ inline ThreadStats stats_of(const RowsOfLoss<T>& a, int64_t row) {
  ThreadStats s{-INFINITY, 0, 0};
#pragma unroll 4
  for (int64_t v = first_column(); v < a.vocabulary; v += column_step()) {
    float x[logits_a_load];
    a.logits(x, row, v);
    const float most = fmaxf(fmaxf(x[0], x[1]), fmaxf(x[2], x[3]));
    if (most > s.max) {
      s.sum *= expf(s.max - most);
      s.max = most;
    }
#pragma unroll
    for (int i = 0; i < logits_a_load; ++i) {
      s.sum += expf(x[i] - s.max);
      if (v + i < a.vocabulary) s.sum_z += x[i];
    }
  }
  return s;
}

// The first column whose logit is `max`; 0 where none is (NaN). As floats, numbers of columns are exact: there are
// fewer than 2^24.
template <class T>
__device__ inline int64_t first_of_largest(const RowsOfLoss<T>& a, int64_t row, float max, float* scratch) {
  int64_t first = a.vocabulary;
  for (int64_t v = first_column(); v < a.vocabulary && first == a.vocabulary; v += column_step()) {
    float x[logits_a_load];
    a.logits(x, row, v);
#pragma unroll
    for (int i = logits_a_load - 1; i >= 0; --i)
      if (x[i] == max) first = v + i;
  }
  const float of_block = -block_max(-float(first), scratch);
  return of_block < float(a.vocabulary) ? int64_t(of_block) : 0;
}

// The gradients of a row's logits from the logarithm of its sum of exponentials; 0 behind the end of the vocabulary.
template <class T>
__device__ inline void store_gradients(const RowsOfLoss<T>& a, int64_t row, int64_t target, float log_sum) {
  const float scale = a.state ? a.state->loss_scale * a.state->inverse_targets * a.logit_scale : a.logit_scale;
  const float uniform = a.smoothing / float(a.all_tokens);
#pragma unroll 4
  for (int64_t v = first_column(); v < a.vocabulary; v += column_step()) {
    float x[logits_a_load];
    a.logits(x, row, v);
#pragma unroll
    for (int i = 0; i < logits_a_load; ++i) {
      const float p = expf(x[i] - log_sum) - uniform - (v + i == target ? 1.f - a.smoothing : 0.f);
      x[i] = v + i < a.vocabulary ? p * scale : 0.f;
    }
    store(a.g[row] + v, x);
  }
}

// What is known of a row from the tokens that a rank has, or all together.
struct RowStats {
  float max, sum, sum_z;
  float target_z;  // 0 where the target is another rank's
  int32_t best;    // the token
};

__device__ inline RowStats joined(const RowStats& a, const RowStats& b) {
  const float max = fmaxf(a.max, b.max);
  return {max, a.sum * expf(a.max - max) + b.sum * expf(b.max - max), a.sum_z + b.sum_z, a.target_z + b.target_z,
          b.max > a.max ? b.best : a.best};
}

template <class T>
__device__ inline RowStats row_stats(const RowsOfLoss<T>& a, int64_t row, int64_t target, float* scratch) {
  require(target < a.all_tokens, "cross_entropy: a target outside the vocabulary");
  const int64_t here = target - a.first_token;
  RowStats s = {};
  // Before the barriers: later its place holds a gradient.
  if (here >= 0 && here < a.vocabulary) s.target_z = a.logit(row, here);
  const ThreadStats mine = stats_of(a, row);
  s.max = block_max(mine.max, scratch);
  s.sum = block_sum(mine.sum * expf(mine.max - s.max), scratch);
  if (a.smoothing != 0) s.sum_z = block_sum(mine.sum_z, scratch);
  if (a.predictions) s.best = int32_t(a.first_token + first_of_largest(a, row, s.max, scratch));
  return s;
}

template <class T>
__device__ inline void finish_row(const RowsOfLoss<T>& a, int64_t row, int64_t target, const RowStats& s) {
  const float log_sum = s.max + logf(s.sum);
  if (threadIdx.x == 0) {
    a.row_loss[row] = log_sum - (1.f - a.smoothing) * s.target_z - a.smoothing * (s.sum_z / float(a.all_tokens));
    if (a.row_nll) a.row_nll[row] = log_sum - s.target_z;
    if (a.predictions) a.predictions[row] = s.best;
  }
  if (a.g) store_gradients(a, row, target - a.first_token, log_sum);
}

// Of a row without a target.
template <class T>
__device__ inline void clear_row(const RowsOfLoss<T>& a, int64_t row) {
  if (threadIdx.x == 0) a.row_loss[row] = 0;
  if (threadIdx.x == 0 && a.row_nll) a.row_nll[row] = 0;
  if (threadIdx.x == 0 && a.predictions) a.predictions[row] = -1;
  constexpr float zeros[logits_a_load] = {};
  for (int64_t v = first_column(); a.g && v < a.vocabulary; v += column_step()) store(a.g[row] + v, zeros);
}

struct LossStorage {
  float scratch[warp_size];
};

// In each of these a block is a row, and takes the same branch.
template <class T>
__global__ void __launch_bounds__(most_row_threads, 1) loss_rows_kernel(RowsOfLoss<T> a) {
  LossStorage& s = shared_memory<LossStorage>();
  const int64_t row = blockIdx.x, target = a.targets[row];
  if (target < 0) return clear_row(a, row);
  finish_row(a, row, target, row_stats(a, row, target, s.scratch));
}

template <class T>
__global__ void __launch_bounds__(most_row_threads, 1) loss_stats_kernel(RowsOfLoss<T> a, RowStats* stats) {
  LossStorage& s = shared_memory<LossStorage>();
  const int64_t row = blockIdx.x, target = a.targets[row];
  if (target < 0) return;  // its stats are never read
  const RowStats here = row_stats(a, row, target, s.scratch);
  if (threadIdx.x == 0) stats[row] = here;
}

// stats: [ranks, rows], which are joined in the ranks' order.
template <class T>
__global__ void __launch_bounds__(most_row_threads, 1)
    loss_of_ranks_kernel(RowsOfLoss<T> a, const RowStats* stats, int ranks) {
  const int64_t row = blockIdx.x, target = a.targets[row];
  if (target < 0) return clear_row(a, row);
  RowStats all = stats[row];
  for (int r = 1; r < ranks; ++r) all = joined(all, stats[int64_t(r) * gridDim.x + row]);
  finish_row(a, row, target, all);
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

// That a rank has, so that chunks are the same on all.
int64_t most_tokens(const CrossEntropy& a) {
  return a.spec.ranks ? part_of(a.spec.vocabulary, {0, a.spec.ranks->size()}).count : a.weight.rows();
}

// The workspace of a call.
struct LossWorkspace {
  int64_t chunk;
  Tensor z, g, nll, bias_parts, products, rank_stats;
  Tensor dweight, dbias;  // sums over chunks, of what is stored in 16 bits

  LossWorkspace(CudaBackend& backend, const CrossEntropy& a)
      : chunk(rows_per_chunk(a.hidden.rows(), most_tokens(a), a.spec)) {
    const int64_t vocabulary = a.weight.rows(), padded = divide_up(vocabulary, 8) * 8;
    const bool narrow = a.hidden.dtype() != DType::f32, gradients = a.dhidden || a.dweight || a.dbias;
    z = backend.workspace({chunk, padded}, DType::f32).columns(0, vocabulary);
    if (gradients) g = narrow ? backend.workspace({chunk, padded}, a.hidden.dtype()).columns(0, vocabulary) : z;
    if (a.spec.ranks)
      rank_stats = backend.workspace({a.spec.ranks->size() * chunk * int64_t(sizeof(RowStats))}, DType::u8);
    if (a.nll && a.spec.label_smoothing != 0) nll = backend.workspace({a.hidden.rows()}, DType::f32);
    if (a.dweight && a.dweight.tensor.dtype() != DType::f32)
      dweight = backend.workspace({vocabulary, a.hidden.cols()}, DType::f32);
    if (a.dbias) bias_parts = backend.workspace({RowBlocks(chunk).count, vocabulary}, DType::f32);
    if (a.dbias && a.dbias.tensor.dtype() != DType::f32) dbias = backend.workspace({vocabulary}, DType::f32);
    products = backend.workspace({backend.products().workspace_bytes()}, DType::u8);
  }
};

// Enough for eight loads a thread. Of a large vocabulary as many as there can be: the fewer rows are under way, the
// more of them are in the L2 cache when they are read again.
unsigned threads_of_row(int64_t vocabulary) {
  const int64_t wanted = divide_up(divide_up(vocabulary, 8 * logits_a_load), warp_size) * warp_size;
  return unsigned(std::clamp<int64_t>(wanted, warp_size, most_row_threads));
}

template <class T>
RowsOfLoss<T> rows_of_loss(const CrossEntropy& a, const LossWorkspace& w, int64_t first) {
  return {.z = rows_of<const float>(w.z),
          .g = rows_of<T>(w.g),
          .bias = data_of<T>(a.bias),
          .targets = a.targets.data<int32_t>() + first,
          .row_loss = a.row_loss.data<float>() + first,
          .row_nll = w.nll ? w.nll.data<float>() + first : nullptr,
          .predictions = a.predictions ? a.predictions.data<int32_t>() + first : nullptr,
          .state = a.state,
          .vocabulary = a.weight.rows(),
          .first_token = a.spec.first_token,
          .all_tokens = a.spec.vocabulary ? a.spec.vocabulary : a.weight.rows(),
          .logit_scale = a.spec.logit_scale,
          .smoothing = a.spec.label_smoothing};
}

void loss_rows(Runtime& runtime, const CrossEntropy& a, const LossWorkspace& w, int64_t first, int64_t n) {
  const dim3 rows(static_cast<unsigned>(n)), threads(threads_of_row(a.weight.rows()));
  constexpr size_t shared = sizeof(LossStorage);
  dispatch<float, fp16, bf16>(a.hidden.dtype(), "cross_entropy", [&]<class T>() {
    const RowsOfLoss<T> of = rows_of_loss<T>(a, w, first);
    if (!a.spec.ranks) return launch(runtime, loss_rows_kernel<T>, rows, threads, shared, of);
    Exchange& ranks = *a.spec.ranks;
    auto* const stats = reinterpret_cast<RowStats*>(w.rank_stats.raw());
    launch(runtime, loss_stats_kernel<T>, rows, threads, shared, of, stats + ranks.rank() * n);
    const std::vector<int64_t> bytes(size_t(ranks.size()), n * int64_t(sizeof(RowStats)));
    ranks.wait(ranks.all_gather(Tensor(w.rank_stats.raw(), {ranks.size() * bytes[0]}, DType::u8), bytes));
    launch(runtime, loss_of_ranks_kernel<T>, rows, threads, 0, of, stats, ranks.size());
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
  if (a.dbias) {
    Grad to = w.dbias ? Grad{w.dbias, Write::overwrite} : a.dbias;
    if (later) to.write = Write::accumulate;
    column_sums(backend.runtime(), to, g, w.bias_parts.data<float>());
  }
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
  if (w.dbias) backend_.cast().convert({.y = a.dbias, .x = w.dbias});
  cuda::mean_of(backend_.runtime(), a.mean, a.row_loss, a.state);
  if (a.nll) cuda::mean_of(backend_.runtime(), a.nll, w.nll ? w.nll : a.row_loss, a.state);
}

}  // namespace mixtape
