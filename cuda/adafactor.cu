// Adafactor: a tensor's second moments by row and by column, the size of its update, and the update. The formula stands
// in core/ops/optimizer.h.
//
// Five kernels, three of which go over gradients and are bound by memory: 12 bytes a parameter for the gradients, 8 for
// the weights, about 20 FLOPs. A block takes a band of rows of one tensor, which follows from shapes alone; columns are
// shared out to threads, so that sums over rows need no exchange.
#include "core/step_state.h"
#include "cuda/device/reduce.h"
#include "cuda/launch.h"

namespace mixtape {
namespace cuda {
namespace {

constexpr int threads = 256;
// With fewer rows a band's sums of columns would be as large as the band.
constexpr int64_t least_rows = 16;

struct Band {
  int64_t tensor, row, rows;
  int64_t columns;  // where the sums of its columns begin in the scratch
};
struct TensorBands {
  int64_t first, end;
};
// What is the same for all elements of a tensor.
struct TensorFactors {
  double rate;
  float row_mean;  // of the second moments of rows
  float step;      // rate / max(1, RMS(u) / clip_threshold)
};

struct Tables {
  const StepState* state;
  const UpdateTensor* tensors;
  const TensorBands* bands_of;
  const Band* bands;
  TensorFactors* factors;
  float* columns;   // of each band; the first of a tensor becomes 1 / sqrt(its moments)
  double* squares;  // of each band's part of the update
  const float* gradients;
  float* moments;
  const float* scales;  // of tensors, or null
  float decay_rate, eps, clip_threshold;

  // 1 - b2
  __device__ double add() const { return pow(double(state->updates) + 1, -double(decay_rate)); }
  __device__ const float* column_factors(int64_t tensor) const {
    return columns + bands[bands_of[tensor].first].columns;
  }
  // What the update of a row has beside the factors of its columns.
  __device__ float row_factor(int64_t tensor, int64_t row) const {
    const UpdateTensor& t = tensors[tensor];
    return t.rows > 1 ? 1 / sqrtf(moments[t.row_moments + row] / factors[tensor].row_mean) : 1.f;
  }
};

// Block: a band.
__global__ void __launch_bounds__(threads) sum_squares_kernel(Tables a) {
  struct Storage {
    float scratch[warp_size];
  };
  Storage& s = shared_memory<Storage>();
  if (!a.state->finite) return;
  const Band band = a.bands[blockIdx.x];
  const UpdateTensor t = a.tensors[band.tensor];
  const float factor = a.state->grad_factor, add = float(a.add()), keep = float(1 - a.add());
  float* columns = a.columns + band.columns;
  for (int64_t row = band.row; row < band.row + band.rows; ++row) {
    const float* gradient = a.gradients + t.offset + row * t.cols;
    float sum = 0;
    for (int64_t c = threadIdx.x; c < t.cols; c += threads) {
      const float g = gradient[c] * factor, square = g * g + a.eps;
      columns[c] = row > band.row ? columns[c] + square : square;
      sum += square;
    }
    if (t.rows == 1) continue;
    sum = block_sum(sum, s.scratch);
    if (threadIdx.x == 0) {
      float& moment = a.moments[t.row_moments + row];
      moment = keep * moment + add * (sum / float(t.cols));
    }
  }
}

// Block: a tensor.
__global__ void __launch_bounds__(threads) second_moments_kernel(Tables a) {
  struct Storage {
    double scratch[warp_size];
  };
  Storage& s = shared_memory<Storage>();
  if (!a.state->finite) return;
  const int64_t tensor = blockIdx.x;
  const UpdateTensor t = a.tensors[tensor];
  const TensorBands bands = a.bands_of[tensor];
  const float add = float(a.add()), keep = float(1 - a.add());
  float* columns = a.columns + a.bands[bands.first].columns;
  for (int64_t c = threadIdx.x; c < t.cols; c += threads) {
    float sum = columns[c];
    for (int64_t b = bands.first + 1; b < bands.end; ++b) sum += a.columns[a.bands[b].columns + c];
    float& moment = a.moments[t.column_moments + c];
    moment = keep * moment + add * (sum / float(t.rows));
    columns[c] = 1 / sqrtf(moment);
  }
  double rows = 0;
  for (int64_t r = threadIdx.x; r < t.rows && t.rows > 1; r += threads) rows += double(a.moments[t.row_moments + r]);
  rows = block_sum(rows, s.scratch);
  if (threadIdx.x != 0) return;
  const double scale = a.scales ? double(a.scales[tensor]) : 1;
  a.factors[tensor] = {.rate = double(a.state->learning_rate) * double(t.lr_factor) * scale,
                       .row_mean = float(rows / double(t.rows)),
                       .step = 0};
}

// Block: a band.
__global__ void __launch_bounds__(threads) squares_of_update_kernel(Tables a) {
  struct Storage {
    double scratch[warp_size];
  };
  Storage& s = shared_memory<Storage>();
  if (!a.state->finite) return;
  const Band band = a.bands[blockIdx.x];
  const UpdateTensor t = a.tensors[band.tensor];
  const float* columns = a.column_factors(band.tensor);
  const float factor = a.state->grad_factor;
  double squares = 0;
  for (int64_t row = band.row; row < band.row + band.rows; ++row) {
    const float* gradient = a.gradients + t.offset + row * t.cols;
    const double of_row = double(a.row_factor(band.tensor, row));
    float sum = 0;
    for (int64_t c = threadIdx.x; c < t.cols; c += threads) {
      const float u = gradient[c] * factor * columns[c];
      sum += u * u;
    }
    squares += of_row * of_row * double(sum);
  }
  squares = block_sum(squares, s.scratch);
  if (threadIdx.x == 0) a.squares[blockIdx.x] = squares;
}

// Adds the squares of a tensor's bands in order.
struct StepBody {
  Tables a;
  __device__ void operator()(int64_t, int64_t tensor) const {
    if (!a.state->finite) return;
    double squares = 0;
    for (int64_t b = a.bands_of[tensor].first; b < a.bands_of[tensor].end; ++b) squares += a.squares[b];
    const double rms = sqrt(squares / double(a.tensors[tensor].count())) / double(a.clip_threshold);
    a.factors[tensor].step = float(a.factors[tensor].rate / (rms > 1 ? rms : 1));
  }
};

template <class T>
struct Weights {
  float* weights;        // the master copy where there is one
  T* rounded;            // what the model computes with, else null
  float* first_moments;  // or null
  float keep_m, add_m;
};

// Block: a band.
template <class T>
__global__ void __launch_bounds__(threads) adafactor_kernel(Tables a, Weights<T> to) {
  if (!a.state->finite) return;
  const Band band = a.bands[blockIdx.x];
  const UpdateTensor t = a.tensors[band.tensor];
  const TensorFactors f = a.factors[band.tensor];
  const float* columns = a.column_factors(band.tensor);
  const float factor = a.state->grad_factor, decay = float(1 - f.rate * double(t.weight_decay));
  for (int64_t row = band.row; row < band.row + band.rows; ++row) {
    const int64_t begin = t.offset + row * t.cols;
    const float step = f.step * a.row_factor(band.tensor, row);
    for (int64_t c = threadIdx.x; c < t.cols; c += threads) {
      float u = a.gradients[begin + c] * factor * columns[c] * step;
      if (to.first_moments) {
        u = to.keep_m * to.first_moments[begin + c] + to.add_m * u;
        to.first_moments[begin + c] = u;
      }
      const float weight = to.weights[begin + c] * decay - u;
      to.weights[begin + c] = weight;
      if (to.rounded) to.rounded[begin + c] = rounded_weight<T>(weight);
    }
  }
}

// The cut of the tensors into bands.
struct Plan {
  std::vector<UpdateTensor> tensors;
  std::vector<TensorBands> bands_of;
  std::vector<Band> bands;
  int64_t columns = 0;
};

Plan plan_of(const Adafactor& a) {
  Plan plan;
  plan.tensors.assign(a.tensors, a.tensors + a.n_tensors);
  for (int64_t i = 0; i < a.n_tensors; ++i) {
    const UpdateTensor& t = a.tensors[i];
    const auto first = int64_t(plan.bands.size());
    const int64_t height = std::max(least_rows, chunk_elements / std::max<int64_t>(t.cols, 1));
    for (int64_t row = 0; row < t.rows; row += height) {
      plan.bands.push_back({i, row, std::min(height, t.rows - row), plan.columns});
      plan.columns += t.cols;
    }
    plan.bands_of.push_back({first, int64_t(plan.bands.size())});
  }
  return plan;
}

// Room for a table, and the table there.
template <class Entry>
Tensor room_for(CudaBackend& backend, int64_t n) {
  return backend.workspace({std::max<int64_t>(n, 1) * int64_t(sizeof(Entry))}, DType::u8);
}
template <class Entry>
const Entry* upload(CudaBackend& backend, const Tensor& to, const std::vector<Entry>& entries) {
  backend.runtime().copy_to_device(to.raw(), entries.data(), int64_t(entries.size() * sizeof(Entry)));
  return reinterpret_cast<const Entry*>(to.raw());
}

}  // namespace
}  // namespace cuda

void CudaOptimizer::adafactor(const Adafactor& a) {
  const cuda::Plan plan = cuda::plan_of(a);
  const auto n_bands = int64_t(plan.bands.size());
  const Tensor tensors = cuda::room_for<UpdateTensor>(backend_, a.n_tensors);
  const Tensor bands_of = cuda::room_for<cuda::TensorBands>(backend_, a.n_tensors);
  const Tensor bands = cuda::room_for<cuda::Band>(backend_, n_bands);
  const Tensor factors = cuda::room_for<cuda::TensorFactors>(backend_, a.n_tensors);
  const Tensor columns = backend_.workspace({std::max<int64_t>(plan.columns, 1)}, DType::f32);
  const Tensor squares = cuda::room_for<double>(backend_, n_bands);
  if (backend_.planning() || n_bands == 0) return;
  const cuda::Tables tables{.state = a.state,
                            .tensors = cuda::upload(backend_, tensors, plan.tensors),
                            .bands_of = cuda::upload(backend_, bands_of, plan.bands_of),
                            .bands = cuda::upload(backend_, bands, plan.bands),
                            .factors = reinterpret_cast<cuda::TensorFactors*>(factors.raw()),
                            .columns = columns.data<float>(),
                            .squares = reinterpret_cast<double*>(squares.raw()),
                            .gradients = a.gradients.data<float>(),
                            .moments = a.v.data<float>(),
                            .scales = cuda::data_of<const float>(a.scales),
                            .decay_rate = a.decay_rate,
                            .eps = a.eps,
                            .clip_threshold = a.clip_threshold};
  cuda::Runtime& runtime = backend_.runtime();
  const dim3 by_band{unsigned(n_bands)}, by_tensor{unsigned(a.n_tensors)}, block{cuda::threads};
  const size_t floats = cuda::warp_size * sizeof(float), doubles = cuda::warp_size * sizeof(double);
  cuda::launch(runtime, cuda::sum_squares_kernel, by_band, block, floats, tables);
  cuda::launch(runtime, cuda::second_moments_kernel, by_tensor, block, doubles, tables);
  cuda::launch(runtime, cuda::squares_of_update_kernel, by_band, block, doubles, tables);
  cuda::elementwise(runtime, 1, a.n_tensors, cuda::StepBody{tables});
  dispatch<float, fp16, bf16>(a.weights.dtype(), "adafactor", [&]<class T>() {
    cuda::launch(runtime, cuda::adafactor_kernel<T>, by_band, block, 0, tables,
                 cuda::Weights<T>{.weights = (a.master ? a.master : a.weights).data<float>(),
                                  .rounded = a.master ? a.weights.data<T>() : nullptr,
                                  .first_moments = cuda::data_of<float>(a.m),
                                  .keep_m = a.beta1,
                                  .add_m = float(1 - double(a.beta1))});
  });
}

}  // namespace mixtape
