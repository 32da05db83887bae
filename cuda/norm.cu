// Layer norm and RMS norm, alone or after a residual addition.
//
// Bound by memory. Bytes a row of C elements of size s: forward 2 C s, with the addition 4 C s; backward 3 C s, with
// the gradient that passes the norm 4 C s; about 8 FLOPs an element forward, 12 backward.
//
// Forward: a warp a row, which stays in registers between the statistics and the result; rows that are too wide for
// that, or no whole number of vectors, are read again by a block a row, from the cache. Backward: a block takes a range
// of rows, each thread the same columns of all of them, so that the gradients of the weights are sums in registers;
// they go to memory once a block, and are added over blocks in order.
#include "cuda/column_sums.h"
#include "cuda/device/reduce.h"

namespace mixtape {
namespace cuda {
namespace {

constexpr int forward_warps = 4;  // rows of a block

template <class T>
struct Forward {
  Rows<T> y, h;
  float *mean, *inv;
  Rows<const T> x, branch;
  const T *weight, *bias;
  int64_t rows, cols;
  float eps;
  bool center;
};

// h[row, col ...] = x + branch, rounded to the type, or x.
template <class T, int N>
__device__ inline void load_sum(float (&v)[N], const Forward<T>& a, int64_t row, int64_t col) {
  load(v, a.x[row] + col);
  if (!a.branch) return;
  float b[N];
  load(b, a.branch[row] + col);
#pragma unroll
  for (int i = 0; i < N; ++i) v[i] = to_float(from_float<T>(v[i] + b[i]));
}

template <class T, int N>
__device__ inline void store_normed(const Forward<T>& a, const float (&v)[N], int64_t row, int64_t col, float mean,
                                    float inv) {
  float w[N], b[N] = {}, y[N];
  load(w, a.weight + col);
  if (a.bias) load(b, a.bias + col);
#pragma unroll
  for (int i = 0; i < N; ++i) y[i] = (v[i] - mean) * inv * w[i] + b[i];
  store(a.y[row] + col, y);
}

// V vectors of N elements a lane hold a row. The variance is taken around the mean in a second pass over registers:
// E[x^2] - E[x]^2 cancels.
template <class T, int N, int V>
__global__ void __launch_bounds__(forward_warps* warp_size) norm_kernel(Forward<T> a) {
  const int64_t row = int64_t(blockIdx.x) * forward_warps + warp_id();
  if (row >= a.rows) return;  // a whole warp, and no barrier follows
  const auto col = [&](int k) { return (int64_t(k) * warp_size + lane_id()) * N; };

  float v[V][N];
  float sum = 0;
#pragma unroll
  for (int k = 0; k < V; ++k) {
    if (col(k) >= a.cols) continue;
    load_sum(v[k], a, row, col(k));
    if (a.branch) store(a.h[row] + col(k), v[k]);
#pragma unroll
    for (int i = 0; i < N; ++i) sum += v[k][i];
  }
  const float mean = a.center ? warp_sum(sum) / float(a.cols) : 0.f;
  float squares = 0;
#pragma unroll
  for (int k = 0; k < V; ++k) {
    if (col(k) >= a.cols) continue;
#pragma unroll
    for (int i = 0; i < N; ++i) squares += (v[k][i] - mean) * (v[k][i] - mean);
  }
  const float inv = 1.f / sqrtf(warp_sum(squares) / float(a.cols) + a.eps);
  if (lane_id() == 0) {
    if (a.mean) a.mean[row] = mean;
    if (a.inv) a.inv[row] = inv;
  }
#pragma unroll
  for (int k = 0; k < V; ++k)
    if (col(k) < a.cols) store_normed(a, v[k], row, col(k), mean, inv);
}

constexpr int wide_threads = 256;

// A block a row of any width.
template <class T, int N>
__global__ void __launch_bounds__(wide_threads) norm_wide_kernel(Forward<T> a) {
  struct Storage {
    float scratch[warp_size];
  };
  Storage& s = shared_memory<Storage>();
  const int64_t row = blockIdx.x, step = int64_t(wide_threads) * N;
  float sum = 0;
  for (int64_t c = int64_t(threadIdx.x) * N; c < a.cols; c += step) {
    float v[N];
    load_sum(v, a, row, c);
    if (a.branch) store(a.h[row] + c, v);
#pragma unroll
    for (int i = 0; i < N; ++i) sum += v[i];
  }
  const float mean = a.center ? block_sum(sum, s.scratch) / float(a.cols) : 0.f;
  float squares = 0;
  for (int64_t c = int64_t(threadIdx.x) * N; c < a.cols; c += step) {
    float v[N];
    load_sum(v, a, row, c);
#pragma unroll
    for (int i = 0; i < N; ++i) squares += (v[i] - mean) * (v[i] - mean);
  }
  const float inv = 1.f / sqrtf(block_sum(squares, s.scratch) / float(a.cols) + a.eps);
  if (threadIdx.x == 0) {
    if (a.mean) a.mean[row] = mean;
    if (a.inv) a.inv[row] = inv;
  }
  for (int64_t c = int64_t(threadIdx.x) * N; c < a.cols; c += step) {
    float v[N];
    load_sum(v, a, row, c);
    store_normed(a, v, row, c, mean, inv);
  }
}

template <class T>
struct BackwardOf {
  Rows<T> dx;
  Rows<const T> dy, dh, h;
  const T* weight;
  const float *mean, *inv;
  float *weight_parts, *bias_parts;  // [blocks, cols]; null where no gradient is wanted
  int64_t rows, cols, block_rows;
  bool center, accumulate;
};

// The bound leaves 128 registers a thread, which hold 16 columns and their sums.
constexpr int backward_threads = 512;
// Of rows in turns, so that a barrier a row does.
struct NormSums {
  float of_rows[2][2][warp_size];
};

// V vectors of N elements a thread are the columns of a block's threads. With n = (h - mean) inv and g = dy weight:
// dx = dh + inv (g - mean(g) - n mean(g n)), without mean(g) for RMS norm. A thread reads dh and dy where it writes dx
// afterwards, so dx may be either.
template <class T, int N, int V>
__global__ void __launch_bounds__(backward_threads) norm_backward_kernel(BackwardOf<T> a) {
  NormSums& s = shared_memory<NormSums>();
  const auto col = [&](int k) { return (int64_t(k) * blockDim.x + threadIdx.x) * N; };
  const int64_t begin = blockIdx.x * a.block_rows, end = std::min(a.rows, begin + a.block_rows);
  float dw[V][N] = {}, db[V][N] = {};

  for (int64_t row = begin; row < end; ++row) {
    const float mean = a.mean ? a.mean[row] : 0.f, inv = a.inv[row];
    float g[V][N] = {}, n[V][N] = {};
    float sum_g = 0, sum_gn = 0;
#pragma unroll
    for (int k = 0; k < V; ++k) {
      if (col(k) >= a.cols) continue;
      float d[N], w[N];
      load(d, a.dy[row] + col(k));
      load(n[k], a.h[row] + col(k));
      load(w, a.weight + col(k));
#pragma unroll
      for (int i = 0; i < N; ++i) {
        n[k][i] = (n[k][i] - mean) * inv;
        g[k][i] = d[i] * w[i];
        dw[k][i] += d[i] * n[k][i];
        db[k][i] += d[i];
        sum_g += g[k][i];
        sum_gn += g[k][i] * n[k][i];
      }
    }
    if (!a.dx) continue;
    block_sums(sum_gn, sum_g, s.of_rows[row % 2]);
    const float mean_gn = sum_gn / float(a.cols), mean_g = a.center ? sum_g / float(a.cols) : 0.f;
#pragma unroll
    for (int k = 0; k < V; ++k) {
      if (col(k) >= a.cols) continue;
      float through[N], past[N] = {};
      if (a.dh) load(past, a.dh[row] + col(k));
#pragma unroll
      for (int i = 0; i < N; ++i) through[i] = past[i] + inv * (g[k][i] - mean_g - n[k][i] * mean_gn);
      put(a.dx[row] + col(k), through, a.accumulate);
    }
  }
  const int64_t part = blockIdx.x * a.cols;
#pragma unroll
  for (int k = 0; k < V; ++k) {
    if (col(k) >= a.cols) continue;
    if (a.weight_parts) store(a.weight_parts + part + col(k), dw[k]);
    if (a.bias_parts) store(a.bias_parts + part + col(k), db[k]);
  }
}

// The widest row that the threads of one block hold, 32 columns each, of which some then lie in local memory.
constexpr int64_t widest_row = backward_threads * 32;

template <class T, int N>
void run_backward(Runtime& runtime, const BackwardOf<T>& a, int64_t blocks) {
  const int64_t vectors = a.cols / N;
  const int64_t threads = std::min<int64_t>(backward_threads, divide_up(vectors, warp_size) * warp_size);
  const auto run = [&]<int V>() {
    launch(runtime, norm_backward_kernel<T, N, V>, dim3(unsigned(blocks)), dim3(unsigned(threads)), sizeof(NormSums),
           a);
  };
  const int64_t held = divide_up(vectors, threads);
  if (held <= 1) return run.template operator()<1>();
  if (held <= 2) return run.template operator()<2>();
  if constexpr (N > 1)
    if (held <= 16 / N) return run.template operator()<16 / N>();
  if constexpr (N == 1)
    if (held <= 32) return run.template operator()<32>();
  throw Error("norm_backward: rows of {} columns, at most {}", a.cols, widest_row);
}

}  // namespace
}  // namespace cuda

void CudaNorm::norm(const Norm& a) {
  if (backend_.planning()) return;
  const int64_t rows = a.x.rows(), cols = a.x.cols();
  if (rows == 0) return;
  dispatch<float, fp16, bf16>(a.x.dtype(), "norm", [&]<class T>() {
    const cuda::Forward<T> f{.y = cuda::rows_of<T>(a.y),
                             .h = cuda::rows_of<T>(a.h),
                             .mean = cuda::data_of<float>(a.mean),
                             .inv = cuda::data_of<float>(a.inv),
                             .x = cuda::rows_of<const T>(a.x),
                             .branch = cuda::rows_of<const T>(a.branch),
                             .weight = cuda::data_of<T>(a.weight),
                             .bias = cuda::data_of<T>(a.bias),
                             .rows = rows,
                             .cols = cols,
                             .eps = a.eps,
                             .center = a.center};
    cuda::dispatch_vectors<T>({rows, cols}, {a.y, a.h, a.x, a.branch, a.weight, a.bias}, [&]<int N>() {
      const auto warps = [&]<int V>() {
        cuda::launch(backend_.runtime(), cuda::norm_kernel<T, N, V>,
                     dim3(unsigned(cuda::divide_up(rows, cuda::forward_warps))),
                     dim3(cuda::forward_warps * cuda::warp_size), 0, f);
      };
      const int64_t held = cuda::divide_up(cols / N, cuda::warp_size);
      if constexpr (N > 1) {
        if (held <= 1) return warps.template operator()<1>();
        if (held <= 4) return warps.template operator()<4>();
        if (held <= 8) return warps.template operator()<8>();
      }
      cuda::launch(backend_.runtime(), cuda::norm_wide_kernel<T, N>, dim3(unsigned(rows)), dim3(cuda::wide_threads),
                   cuda::warp_size * sizeof(float), f);
    });
  });
}

void CudaNorm::norm_backward(const NormBackward& a) {
  const int64_t rows = a.h.rows(), cols = a.h.cols();
  const cuda::RowBlocks blocks(rows);
  const Tensor parts = backend_.workspace({2, std::max<int64_t>(blocks.count, 1), cols}, DType::f32);
  if (backend_.planning()) return;
  float* weight_parts = parts.data<float>();
  float* bias_parts = weight_parts + blocks.count * cols;
  if (rows > 0)
    dispatch<float, fp16, bf16>(a.h.dtype(), "norm_backward", [&]<class T>() {
      const cuda::BackwardOf<T> b{.dx = a.dx ? cuda::rows_of<T>(a.dx.tensor) : cuda::Rows<T>{},
                                  .dy = cuda::rows_of<const T>(a.dy),
                                  .dh = cuda::rows_of<const T>(a.dh),
                                  .h = cuda::rows_of<const T>(a.h),
                                  .weight = cuda::data_of<T>(a.weight),
                                  .mean = a.center ? cuda::data_of<float>(a.mean) : nullptr,
                                  .inv = cuda::data_of<float>(a.inv),
                                  .weight_parts = a.dweight ? weight_parts : nullptr,
                                  .bias_parts = a.dbias ? bias_parts : nullptr,
                                  .rows = rows,
                                  .cols = cols,
                                  .block_rows = blocks.size,
                                  .center = a.center,
                                  .accumulate = a.dx.accumulates()};
      const Tensor dx = a.dx ? a.dx.tensor : Tensor{};
      constexpr int n = 16 / sizeof(T);
      const bool fit =
          cols <= 16 * cuda::backward_threads && cuda::vectors_fit({rows, cols}, n, {dx, a.dy, a.dh, a.h, a.weight});
      if (fit)
        cuda::run_backward<T, n>(backend_.runtime(), b, blocks.count);
      else
        cuda::run_backward<T, 1>(backend_.runtime(), b, blocks.count);
    });
  cuda::sum_parts(backend_.runtime(), a.dweight, weight_parts, blocks.count);
  cuda::sum_parts(backend_.runtime(), a.dbias, bias_parts, blocks.count);
}

}  // namespace mixtape
