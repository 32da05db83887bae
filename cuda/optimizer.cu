// The global gradient norm with its check for finiteness, the scales of tensors, and AdamW, over flat buffers.
//
// Both are one pass and bound by memory. Norm: a gradient read a parameter, 2 FLOPs, in double precision, where squares
// of finite floats cannot overflow, so that the sum is finite exactly if all gradients are. AdamW: m, v, master read
// and written, gradient read, weight written: 30 bytes a parameter with a master and 16-bit weights, 28 with float32
// weights alone, 24 with 16-bit weights alone, rounded by chance; about 15 FLOPs, and for that a draw of some 100
// integer operations for eight weights.
//
// What changes from step to step is read from the StepState in device memory.
#include "core/ops/optimizer_pieces.h"
#include "cuda/update.h"

namespace mixtape {
namespace cuda {
namespace {

constexpr int norm_threads = 512, tree_threads = 1024;

// partials[range] = sum of squares, a block a range of at most a chunk.
template <class T>
__global__ void __launch_bounds__(norm_threads)
    range_norms_kernel(double* partials, const T* gradients, const UpdateRange* ranges) {
  struct Storage {
    double scratch[warp_size];
  };
  Storage& s = shared_memory<Storage>();
  const UpdateRange range = ranges[blockIdx.x];
  const T* g = gradients + range.offset;
  double sum = 0;
  const int64_t whole = range.offset % 4 == 0 ? range.count / 4 : 0;
  for (int64_t i = threadIdx.x; i < whole; i += norm_threads) {
    float v[4];
    load(v, g + 4 * i);
#pragma unroll
    for (int j = 0; j < 4; ++j) sum += double(v[j]) * v[j];
  }
  for (int64_t i = 4 * whole + threadIdx.x; i < range.count; i += norm_threads) {
    const auto v = double(float(g[i]));
    sum += v * v;
  }
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

struct AdamWStep {
  AdamWCorrections c;
  float gradient, penalty, decay, step, eps;

  __device__ void operator()(float& w, float g, float& m, float& v) const {
    const float scaled = g * gradient + penalty * w;
    m = m * c.keep_m + scaled * c.add_m;
    v = v * c.keep_v + scaled * scaled * c.add_v;
    w = w * decay - step * (m / (sqrtf(v) * c.second + eps));
  }
};

struct AdamWRule {
  const AdamWCorrections* corrections;
  const float* scales;  // of tensors, or null
  float eps;
  bool decoupled;

  __device__ AdamWStep of(const StepState& state, const UpdateRange& range) const {
    const double lr = double(state.learning_rate) * double(range.lr_factor);
    const double scale = scales ? double(scales[range.tensor]) : 1;
    return {.c = *corrections,
            .gradient = state.grad_factor,
            .penalty = decoupled ? 0 : range.weight_decay,
            .decay = float(decoupled ? 1 - lr * double(range.weight_decay) : 1),
            .step = float(lr * scale * corrections->step),
            .eps = eps};
  }
};

}  // namespace
}  // namespace cuda

void CudaOptimizer::range_squares(const RangeSquares& a) {
  const Tensor table = cuda::room_for_ranges(backend_, a.n_ranges);
  if (backend_.planning() || a.n_ranges == 0) return;
  const UpdateRange* ranges = cuda::upload(backend_, table, a.ranges, a.n_ranges);
  dispatch<float, bf16>(a.gradients.dtype(), "range_squares", [&]<class T>() {
    cuda::launch(backend_.runtime(), cuda::range_norms_kernel<T>, dim3(unsigned(a.n_ranges)), dim3(cuda::norm_threads),
                 cuda::warp_size * sizeof(double), reinterpret_cast<double*>(a.squares.raw()),
                 static_cast<const T*>(a.gradients.data<T>()), ranges);
  });
}

void CudaOptimizer::gradient_norm(const GradientNorm& a) {
  const int64_t chunks = chunks_of(a.ranges, a.n_ranges);
  const Tensor squares =
      a.squares ? a.squares : backend_.workspace({std::max<int64_t>(a.n_ranges, 1)}, DType::i64);  // doubles
  const Tensor sums = backend_.workspace({std::max<int64_t>(chunks, 1)}, DType::i64);
  const Tensor table = cuda::room_for_ranges(backend_, a.n_ranges);
  if (!a.squares) range_squares({squares, a.gradients, a.ranges, a.n_ranges});
  if (backend_.planning()) return;
  double* by_chunk = reinterpret_cast<double*>(sums.raw());
  backend_.zero(sums);
  if (a.n_ranges > 0) {
    const UpdateRange* ranges = cuda::upload(backend_, table, a.ranges, a.n_ranges);
    const double* by_range = reinterpret_cast<const double*>(squares.raw());
    cuda::elementwise(backend_.runtime(), 1, a.n_ranges, cuda::ChunkSumsBody{by_chunk, by_range, ranges, a.n_ranges});
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
  cuda::launch(backend_.runtime(), cuda::range_norms_kernel<float>, dim3(unsigned(n)), dim3(cuda::norm_threads),
               cuda::warp_size * sizeof(double), partials, static_cast<const float*>(a.weights.data<float>()), pieces);
  cuda::elementwise(backend_.runtime(), 1, n, cuda::ScalesBody{a.scales.data<float>(), partials, pieces, n, a.least});
}

void CudaOptimizer::adamw(const AdamW& a) {
  const Tensor table = cuda::room_for_ranges(backend_, a.n_ranges);
  const Tensor factors = backend_.workspace({int64_t(sizeof(cuda::AdamWCorrections))}, DType::u8);
  if (backend_.planning() || a.n_ranges == 0) return;
  auto* corrections = reinterpret_cast<cuda::AdamWCorrections*>(factors.raw());
  cuda::launch(backend_.runtime(), cuda::adamw_corrections_kernel, dim3(1), dim3(1), 0, corrections, a.state, a.beta1,
               a.beta2, a.bias_correction);
  cuda::update(backend_, table,
               {.state = a.state,
                .weights = a.weights,
                .master = a.master,
                .gradients = a.gradients,
                .m = a.m,
                .v = a.v,
                .seed = a.seed},
               a.ranges, a.n_ranges,
               cuda::AdamWRule{corrections, cuda::data_of<const float>(a.scales), a.eps, a.decoupled_decay});
}

}  // namespace mixtape
