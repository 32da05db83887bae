// The global gradient norm with its check for finiteness, the scales of tensors, and AdamW, over flat buffers.
//
// Both are one pass and bound by memory. Norm: 4 bytes a parameter, 2 FLOPs, in double precision, where squares of
// finite floats cannot overflow, so that the sum is finite exactly if all gradients are. AdamW: m, v, master read and
// written, gradient read, weight written: 30 bytes a parameter with a master and 16-bit weights, 28 with float32
// weights alone, 24 with 16-bit weights alone, rounded by chance; about 15 FLOPs, and for that a draw of some 100
// integer operations for eight weights.
//
// What changes from step to step is read from the StepState in device memory.
#include "core/ops/optimizer_pieces.h"
#include "core/ops/stochastic_rounding.h"
#include "core/step_state.h"
#include "cuda/device/reduce.h"
#include "cuda/launch.h"

namespace mixtape {
namespace cuda {
namespace {

constexpr int norm_threads = 512, tree_threads = 1024;

// partials[range] = sum of squares, a block a range of at most a chunk.
__global__ void __launch_bounds__(norm_threads)
    range_norms_kernel(double* partials, const float* gradients, const UpdateRange* ranges) {
  struct Storage {
    double scratch[warp_size];
  };
  Storage& s = shared_memory<Storage>();
  const UpdateRange range = ranges[blockIdx.x];
  const float* g = gradients + range.offset;
  double sum = 0;
  const int64_t whole = range.offset % 4 == 0 ? range.count / 4 : 0;
  for (int64_t i = threadIdx.x; i < whole; i += norm_threads) {
    float v[4];
    load(v, g + 4 * i);
#pragma unroll
    for (int j = 0; j < 4; ++j) sum += double(v[j]) * v[j];
  }
  for (int64_t i = 4 * whole + threadIdx.x; i < range.count; i += norm_threads) sum += double(g[i]) * g[i];
  sum = block_sum(sum, s.scratch);
  if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}

// by_chunk[chunk] = the partials of the chunk's ranges, in order. Ranges of one chunk are neighbours in the list.
struct ChunkSumsBody {
  double* by_chunk;
  const double* partials;
  const UpdateRange* ranges;
  int64_t n;
  __device__ int64_t chunk(int64_t r) const { return ranges[r].offset / chunk_elements; }
  __device__ void operator()(int64_t, int64_t r) const {
    if (r > 0 && chunk(r - 1) == chunk(r)) return;
    double sum = 0;
    for (int64_t i = r; i < n && chunk(i) == chunk(r); ++i) sum += partials[i];
    by_chunk[chunk(r)] = sum;
  }
};

// Neighbours are added, then neighbours of those: aligned halves of the buffer have sums of their own, which another
// rank may have made. One block.
__global__ void __launch_bounds__(tree_threads)
    finish_norm_kernel(StepState* state, double* by_chunk, int64_t chunks, float clip, bool adds) {
  for (int64_t width = 1; width < chunks; width *= 2) {
    for (int64_t i = 2 * width * threadIdx.x; i + width < chunks; i += 2 * width * tree_threads)
      by_chunk[i] += by_chunk[i + width];
    __syncthreads();
  }
  if (threadIdx.x != 0) return;
  state->grad_squares = (adds ? state->grad_squares : 0.0) + (chunks > 0 ? by_chunk[0] : 0.0);
  const double norm = sqrt(state->grad_squares) / double(state->loss_scale);
  const double largest = adds ? fmax(norm, double(state->last_norm)) : norm;
  const bool finite = norm - norm == 0;
  double factor = 1;
  if (clip > 0 && double(clip) / (largest + 1e-6) < 1) factor = double(clip) / (largest + 1e-6);
  state->grad_norm = float(norm);
  state->finite = finite ? 1 : 0;
  state->grad_factor = finite ? float(factor / double(state->loss_scale)) : 0.f;
}

// scales[tensor] = max(least, the root mean square over its pieces, in order), by the first piece of each.
struct ScalesBody {
  float* scales;
  const double* partials;
  const UpdateRange* pieces;
  int64_t n;
  float least;
  __device__ void operator()(int64_t, int64_t p) const {
    const int32_t tensor = pieces[p].tensor;
    if (p > 0 && pieces[p - 1].tensor == tensor) return;
    double sum = 0, count = 0;
    for (int64_t i = p; i < n && pieces[i].tensor == tensor; ++i) {
      sum += partials[i];
      count += double(pieces[i].count);
    }
    scales[tensor] = fmaxf(least, float(sqrt(sum / count)));
  }
};

constexpr int adamw_threads = 256;
constexpr int64_t adamw_piece = 4096;  // elements of a block

// What is the same for all elements, computed once, in double precision.
struct AdamWCorrections {
  double step;   // 1 / (1 - beta1^t)
  float second;  // 1 / sqrt(1 - beta2^t)
  float keep_m, add_m, keep_v, add_v;
};
__global__ void adamw_corrections_kernel(AdamWCorrections* to, const StepState* state, float beta1, float beta2,
                                         bool corrects) {
  const double t = double(state->updates) + 1;
  *to = {.step = corrects ? 1 / (1 - pow(double(beta1), t)) : 1,
         .second = corrects ? float(1 / sqrt(1 - pow(double(beta2), t))) : 1,
         .keep_m = beta1,
         .add_m = float(1 - double(beta1)),
         .keep_v = beta2,
         .add_v = float(1 - double(beta2))};
}

template <class T>
struct AdamWOf {
  const StepState* state;
  const AdamWCorrections* corrections;
  const UpdateRange* ranges;
  const float* scales;  // of tensors, or null
  float* weights;       // the master copy where there is one; null where weights of 16 bits have none
  T* rounded;           // what the model computes with, else null
  const float* gradients;
  float *m, *v;
  float eps;
  uint64_t seed;
};

struct AdamWFactors {
  AdamWCorrections c;
  float gradient, decay, step, eps;
  PhiloxKey rounding;
  uint32_t parameter;
  int64_t first;  // of the parameter's elements is at 0 of the flat buffers
};

// x of elements from `element` of a parameter on, rounded by chance.
template <class T, int N>
__device__ inline void store_by_chance(T* to, const float (&x)[N], const AdamWFactors& f, uint64_t element) {
  Vec<T, N> held;
  auto draw = rounding_draw(f.rounding, f.parameter, element);
#pragma unroll
  for (int j = 0; j < N; ++j) {
    if (j > 0 && (element + j) % roundings_a_draw == 0) draw = rounding_draw(f.rounding, f.parameter, element + j);
    held.v[j] = round_stochastically<T>(x[j], rounding_bits(draw, element + j));
  }
  *reinterpret_cast<Vec<T, N>*>(to) = held;
}

template <class T, int N>
__device__ inline void update(const AdamWOf<T>& a, const AdamWFactors& f, int64_t i) {
  float w[N], g[N], m[N], v[N];
  if (a.weights)
    load(w, a.weights + i);
  else
    load(w, a.rounded + i);
  load(g, a.gradients + i);
  load(m, a.m + i);
  load(v, a.v + i);
#pragma unroll
  for (int j = 0; j < N; ++j) {
    const float scaled = g[j] * f.gradient;
    m[j] = m[j] * f.c.keep_m + scaled * f.c.add_m;
    v[j] = v[j] * f.c.keep_v + scaled * scaled * f.c.add_v;
    w[j] = w[j] * f.decay - f.step * (m[j] / (sqrtf(v[j]) * f.c.second + f.eps));
  }
  store(a.m + i, m);
  store(a.v + i, v);
  if (a.weights) {
    store(a.weights + i, w);
    if (a.rounded) store(a.rounded + i, w);
  } else if constexpr (sizeof(T) == 2) {
    store_by_chance(a.rounded + i, w, f, uint64_t(f.first + i));
  }
}

// Block (range, piece of it).
template <class T>
__global__ void __launch_bounds__(adamw_threads) adamw_kernel(AdamWOf<T> a) {
  if (!a.state->finite) return;
  const UpdateRange range = a.ranges[blockIdx.x];
  const double lr = double(a.state->learning_rate) * double(range.lr_factor);
  const double scale = a.scales ? double(a.scales[range.tensor]) : 1;
  const AdamWFactors f{.c = *a.corrections,
                       .gradient = a.state->grad_factor,
                       .decay = float(1 - lr * double(range.weight_decay)),
                       .step = float(lr * scale * a.corrections->step),
                       .eps = a.eps,
                       .rounding = rounding_key(a.seed, a.state->attempts),
                       .parameter = range.parameter,
                       .first = range.first - range.offset};
  const int64_t begin = blockIdx.y * adamw_piece, end = std::min(range.count, begin + adamw_piece);
  const int64_t whole = range.offset % 4 == 0 && end > begin ? begin + (end - begin) / 4 * 4 : begin;
  for (int64_t i = begin + 4 * threadIdx.x; i < whole; i += 4 * adamw_threads) update<T, 4>(a, f, range.offset + i);
  for (int64_t i = whole + threadIdx.x; i < end; i += adamw_threads) update<T, 1>(a, f, range.offset + i);
}

// The list of ranges in device memory: copied at each call, some tens of kilobytes.
const UpdateRange* upload(CudaBackend& backend, const Tensor& to, const UpdateRange* ranges, int64_t n) {
  backend.runtime().copy_to_device(to.raw(), ranges, n * int64_t(sizeof(UpdateRange)));
  return reinterpret_cast<const UpdateRange*>(to.raw());
}
Tensor room_for_ranges(CudaBackend& backend, int64_t n) {
  return backend.workspace({std::max<int64_t>(n, 1) * int64_t(sizeof(UpdateRange))}, DType::u8);
}

}  // namespace
}  // namespace cuda

void CudaOptimizer::gradient_norm(const GradientNorm& a) {
  const int64_t chunks = cuda::divide_up(a.gradients.count(), chunk_elements);
  const Tensor table = cuda::room_for_ranges(backend_, a.n_ranges);
  const Tensor sums = backend_.workspace({a.n_ranges + chunks}, DType::i64);  // doubles
  if (backend_.planning()) return;
  double* partials = reinterpret_cast<double*>(sums.raw());
  double* by_chunk = partials + a.n_ranges;
  backend_.zero(sums);
  if (a.n_ranges > 0) {
    const UpdateRange* ranges = cuda::upload(backend_, table, a.ranges, a.n_ranges);
    cuda::launch(backend_.runtime(), cuda::range_norms_kernel, dim3(unsigned(a.n_ranges)), dim3(cuda::norm_threads),
                 cuda::warp_size * sizeof(double), partials, a.gradients.data<float>(), ranges);
    cuda::elementwise(backend_.runtime(), 1, a.n_ranges, cuda::ChunkSumsBody{by_chunk, partials, ranges, a.n_ranges});
  }
  cuda::launch(backend_.runtime(), cuda::finish_norm_kernel, dim3(1), dim3(cuda::tree_threads), 0, a.state, by_chunk,
               chunks, a.clip, a.adds);
}

void CudaOptimizer::parameter_scales(const ParameterScales& a) {
  const std::vector<UpdateRange> list = pieces_of(a.tensors, a.n_tensors);
  const auto n = int64_t(list.size());
  const Tensor table = cuda::room_for_ranges(backend_, n);
  const Tensor sums = backend_.workspace({n}, DType::i64);  // doubles
  if (backend_.planning() || n == 0) return;
  double* partials = reinterpret_cast<double*>(sums.raw());
  const UpdateRange* pieces = cuda::upload(backend_, table, list.data(), n);
  cuda::launch(backend_.runtime(), cuda::range_norms_kernel, dim3(unsigned(n)), dim3(cuda::norm_threads),
               cuda::warp_size * sizeof(double), partials, a.weights.data<float>(), pieces);
  cuda::elementwise(backend_.runtime(), 1, n, cuda::ScalesBody{a.scales.data<float>(), partials, pieces, n, a.least});
}

void CudaOptimizer::adamw(const AdamW& a) {
  const Tensor table = cuda::room_for_ranges(backend_, a.n_ranges);
  const Tensor factors = backend_.workspace({int64_t(sizeof(cuda::AdamWCorrections))}, DType::u8);
  if (backend_.planning() || a.n_ranges == 0) return;
  const UpdateRange* ranges = cuda::upload(backend_, table, a.ranges, a.n_ranges);
  auto* corrections = reinterpret_cast<cuda::AdamWCorrections*>(factors.raw());
  cuda::launch(backend_.runtime(), cuda::adamw_corrections_kernel, dim3(1), dim3(1), 0, corrections, a.state, a.beta1,
               a.beta2, a.bias_correction);
  int64_t longest = 1;
  for (int64_t r = 0; r < a.n_ranges; ++r) longest = std::max(longest, a.ranges[r].count);
  const bool narrow = a.weights.dtype() != DType::f32;
  dispatch<float, fp16, bf16>(a.weights.dtype(), "adamw", [&]<class T>() {
    cuda::launch(backend_.runtime(), cuda::adamw_kernel<T>,
                 dim3(unsigned(a.n_ranges), unsigned(cuda::divide_up(longest, cuda::adamw_piece))),
                 dim3(cuda::adamw_threads), 0,
                 cuda::AdamWOf<T>{.state = a.state,
                                  .corrections = corrections,
                                  .ranges = ranges,
                                  .scales = cuda::data_of<const float>(a.scales),
                                  .weights = narrow ? cuda::data_of<float>(a.master) : a.weights.data<float>(),
                                  .rounded = narrow ? a.weights.data<T>() : nullptr,
                                  .gradients = a.gradients.data<float>(),
                                  .m = a.m.data<float>(),
                                  .v = a.v.data<float>(),
                                  .eps = a.eps,
                                  .seed = a.seed});
  });
}

}  // namespace mixtape
