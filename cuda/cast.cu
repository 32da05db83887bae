// Conversions between element types, sums, rounding through 8-bit codes, and the largest magnitude.
//
// Elementwise and bound by memory: a conversion moves n (sizeof(From) + sizeof(To)) bytes, an addition 3 n sizeof(T),
// the largest magnitude n sizeof(T), nothing where a conversion finds it by the way; at most two FLOPs an element.
#include "core/base/code_scale.h"
#include "cuda/launch.h"

namespace mixtape {
namespace cuda {
namespace {

template <class To, class From, int N>
struct ConvertBody {
  Rows<To> y;
  Rows<const From> x;
  float scale;
  bool accumulate;
  __device__ void operator()(int64_t row, int64_t item) const {
    float v[N];
    load(v, x[row] + item * N);
#pragma unroll
    for (int i = 0; i < N; ++i) v[i] *= scale;
    put(y[row] + item * N, v, accumulate);
  }
};

template <class T, int N>
struct AddBody {
  Rows<T> y;
  Rows<const T> a, b;
  __device__ void operator()(int64_t row, int64_t item) const {
    float u[N], v[N];
    load(u, a[row] + item * N);
    load(v, b[row] + item * N);
#pragma unroll
    for (int i = 0; i < N; ++i) u[i] += v[i];
    store(y[row] + item * N, u);
  }
};

constexpr int amax_threads = 256;
constexpr int64_t amax_blocks = 1024;

// As integers magnitudes are ordered like the numbers, with NaN above infinity. The largest of a block's threads.
__device__ int block_largest(int most) {
  struct Storage {
    int warps[amax_threads / warp_size];
  };
  Storage& s = shared_memory<Storage>();
  for (int d = warp_size / 2; d > 0; d /= 2) most = std::max(most, __shfl_xor_sync(all_lanes, most, d));
  if (lane_id() == 0) s.warps[warp_id()] = most;
  __syncthreads();
  for (int i = 0; i < amax_threads / warp_size; ++i) most = std::max(most, s.warps[i]);
  return most;
}

__device__ int magnitude_bits(float x) {
  const float magnitude = fabsf(x);
  int bits;
  memcpy(&bits, &magnitude, sizeof bits);
  return bits;
}

// A conversion that also leaves in parts[block] the bits of the largest magnitude that the block's threads met: blocks
// take items in turns, as each is one of a number that the last kernel can compare.
template <class To, class From, int N>
__global__ void convert_and_largest_kernel(ConvertBody<To, From, N> body, int* parts, int64_t rows, int64_t items) {
  int most = 0;
  for (int64_t i = int64_t(blockIdx.x) * amax_threads + threadIdx.x; i < rows * items;
       i += int64_t(gridDim.x) * amax_threads) {
    const int64_t row = rows == 1 ? 0 : i / items, item = i - row * items;
    float v[N];
    load(v, body.x[row] + item * N);
#pragma unroll
    for (int j = 0; j < N; ++j) {
      most = std::max(most, magnitude_bits(v[j]));
      v[j] *= body.scale;
    }
    put(body.y[row] + item * N, v, body.accumulate);
  }
  most = block_largest(most);
  if (threadIdx.x == 0) parts[blockIdx.x] = most;
}

// The same without a conversion.
template <class T, int N>
__global__ void largest_kernel(int* parts, Rows<const T> x, int64_t rows, int64_t items) {
  int most = 0;
#pragma unroll 4
  for (int64_t i = int64_t(blockIdx.x) * amax_threads + threadIdx.x; i < rows * items;
       i += int64_t(gridDim.x) * amax_threads) {
    const int64_t row = rows == 1 ? 0 : i / items;
    float v[N];
    load(v, x[row] + (i - row * items) * N);
#pragma unroll
    for (int j = 0; j < N; ++j) most = std::max(most, magnitude_bits(v[j]));
  }
  most = block_largest(most);
  if (threadIdx.x == 0) parts[blockIdx.x] = most;
}

__global__ void largest_of_parts_kernel(float* amax, const int* parts, int count) {
  int most = 0;
  for (int i = int(threadIdx.x); i < count; i += amax_threads) most = std::max(most, parts[i]);
  most = block_largest(most);
  if (threadIdx.x == 0) memcpy(amax, &most, sizeof most);
}

// Where what was found in all parts raises what was known before.
__global__ void raise_to_parts_kernel(float* amax, const int* parts, int count) {
  int most = magnitude_bits(*amax);
  for (int i = int(threadIdx.x); i < count; i += amax_threads) most = std::max(most, parts[i]);
  most = block_largest(most);
  if (threadIdx.x == 0) memcpy(amax, &most, sizeof most);
}

// The scale of all of x, which is known but in the first step, or of each row: a block each.
template <class T, int N>
__global__ void scales_kernel(float* scales, Rows<const T> x, const float* known, DType codes, int64_t rows,
                              int64_t items) {
  const float before = known ? *known : 0;
  int most = 0;
  if (before == 0) {
    // With a scale a row, the grid's rows are one each; else one block sees them all.
    const int64_t first = gridDim.x > 1 ? blockIdx.x : 0, last = gridDim.x > 1 ? first + 1 : rows;
    for (int64_t row = first; row < last; ++row)
      for (int64_t i = threadIdx.x; i < items; i += amax_threads) {
        float v[N];
        load(v, x[row] + i * N);
#pragma unroll
        for (int j = 0; j < N; ++j) most = std::max(most, magnitude_bits(v[j]));
      }
  }
  most = block_largest(most);
  if (threadIdx.x > 0) return;
  float amax;
  memcpy(&amax, &most, sizeof amax);
  scales[blockIdx.x] = before == 0 ? code_scale(codes, amax) : before;
}

// parts: as above, or null.
template <class Code, class T, int N>
__global__ void quantise_kernel(Rows<T> y, Rows<const T> x, const float* scales, bool by_rows, int* parts, int64_t rows,
                                int64_t items) {
  int most = 0;
  for (int64_t i = int64_t(blockIdx.x) * amax_threads + threadIdx.x; i < rows * items;
       i += int64_t(gridDim.x) * amax_threads) {
    const int64_t row = rows == 1 ? 0 : i / items, item = i - row * items;
    const float given = scales[by_rows ? row : 0], scale = given == 0 ? 1 : given, by = 1 / scale;
    float v[N];
    load(v, x[row] + item * N);
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const int bits = magnitude_bits(v[j]);
      most = std::max(most, bits);
      if (bits < 0x7f800000) v[j] = to_float(from_float<Code>(v[j] * by)) * scale;
    }
    store(y[row] + item * N, v);
  }
  if (!parts) return;
  most = block_largest(most);
  if (threadIdx.x == 0) parts[blockIdx.x] = most;
}

// A block an operand.
__global__ void update_scales_kernel(const StepState* state, Rows<float> history, float* scale, float* amax, int length,
                                     std::array<DType, 3> codes, int margin) {
  float* const mine = history[blockIdx.x];
  const float now = amax[blockIdx.x];
  int most = 0;
  if (state->finite) {
    const int at = int(state->updates % uint64_t(length));
    for (int i = int(threadIdx.x); i < length; i += amax_threads) {
      const int bits = magnitude_bits(i == at ? now : mine[i]);
      const bool finite = bits < 0x7f800000;
      if (i == at) mine[i] = finite ? now : 0;
      if (finite) most = std::max(most, bits);
    }
  }
  most = block_largest(most);  // after which all have read amax
  if (threadIdx.x > 0) return;
  if (state->finite) {
    float largest;
    memcpy(&largest, &most, sizeof largest);
    scale[blockIdx.x] = code_scale(codes[blockIdx.x % 3], largest, margin);
  }
  amax[blockIdx.x] = 0;
}

constexpr size_t amax_shared = sizeof(int) * amax_threads / warp_size;

int64_t amax_blocks_for(int64_t count) {
  return std::clamp<int64_t>(divide_up(count, 16 * amax_threads), 1, amax_blocks);
}

// `parts`: for the largest magnitude, or absent.
template <class To, class From>
void convert(Runtime& runtime, const Convert& a, const Tensor& parts) {
  const Extent e = extent_of({a.x, a.y.tensor});
  dispatch_vectors<std::conditional_t<sizeof(To) < sizeof(From), From, To>>(e, {a.x, a.y.tensor}, [&]<int N>() {
    const ConvertBody<To, From, N> body{rows_of<To>(a.y.tensor), rows_of<const From>(a.x), a.scale, a.y.accumulates()};
    if (!parts) return elementwise(runtime, e.rows, e.cols / N, body);
    if constexpr (sizeof(From) > 1)
      launch(runtime, convert_and_largest_kernel<To, From, N>, dim3(unsigned(parts.count())), dim3(amax_threads),
             amax_shared, body, parts.data<int32_t>(), e.rows, e.cols / N);
  });
}

template <class Code, class T>
void quantise(Runtime& runtime, const Quantise& a, const Tensor& scales, const Tensor& parts) {
  const Extent e = a.by_rows ? Extent{a.x.rows(), a.x.cols()} : extent_of({a.x, a.y});
  const int64_t blocks = amax_blocks_for(a.x.count());
  dispatch_vectors<T>(e, {a.x, a.y}, [&]<int N>() {
    launch(runtime, scales_kernel<T, N>, dim3(unsigned(scales.count())), dim3(amax_threads), amax_shared,
           scales.data<float>(), rows_of<const T>(a.x), data_of<const float>(a.scale), a.codes, e.rows, e.cols / N);
    launch(runtime, quantise_kernel<Code, T, N>, dim3(unsigned(blocks)), dim3(amax_threads), amax_shared,
           rows_of<T>(a.y), rows_of<const T>(a.x), scales.data<float>(), a.by_rows, data_of<int32_t>(parts), e.rows,
           e.cols / N);
  });
  if (parts)
    launch(runtime, raise_to_parts_kernel, dim3(1), dim3(amax_threads), amax_shared, a.amax.data<float>(),
           parts.data<int32_t>(), int(parts.count()));
}

void finish_largest(Runtime& runtime, const Tensor& amax, const Tensor& parts) {
  launch(runtime, largest_of_parts_kernel, dim3(1), dim3(amax_threads), amax_shared, amax.data<float>(),
         parts.data<int32_t>(), int(parts.count()));
}

}  // namespace
}  // namespace cuda

// From and to fp32, fp16 and bf16 all are; fp8 and int8 are so with these three only.
void CudaCast::convert(const Convert& a) {
  Tensor parts;
  if (a.amax) parts = backend_.workspace({cuda::amax_blocks_for(a.x.count())}, DType::i32);
  if (backend_.planning() || !a.y) return;
  const auto narrow = [](DType t) { return size_of(t) == 1; };
  if (narrow(a.x.dtype()) && narrow(a.y.tensor.dtype()))
    throw Error("convert: no kernel from {} to {}", a.x.dtype(), a.y.tensor.dtype());
  if (a.amax && narrow(a.x.dtype()))
    throw Error("convert: the largest magnitude of {}, expected fp32, fp16 or bf16", a.x.dtype());
  dispatch<float, fp16, bf16, e4m3, e5m2, int8_t>(a.x.dtype(), "convert", [&]<class From>() {
    if constexpr (sizeof(From) == 1)
      dispatch<float, fp16, bf16>(a.y.tensor.dtype(), "convert",
                                  [&]<class To>() { cuda::convert<To, From>(backend_.runtime(), a, parts); });
    else
      dispatch<float, fp16, bf16, e4m3, e5m2, int8_t>(
          a.y.tensor.dtype(), "convert", [&]<class To>() { cuda::convert<To, From>(backend_.runtime(), a, parts); });
  });
  if (parts) cuda::finish_largest(backend_.runtime(), a.amax, parts);
}

void CudaCast::add(const Add& a) {
  if (backend_.planning()) return;
  const cuda::Extent e = cuda::extent_of({a.y, a.a, a.b});
  dispatch<float, fp16, bf16>(a.y.dtype(), "add", [&]<class T>() {
    cuda::dispatch_vectors<T>(e, {a.y, a.a, a.b}, [&]<int N>() {
      cuda::elementwise(
          backend_.runtime(), e.rows, e.cols / N,
          cuda::AddBody<T, N>{cuda::rows_of<T>(a.y), cuda::rows_of<const T>(a.a), cuda::rows_of<const T>(a.b)});
    });
  });
}

void CudaCast::abs_max(const AbsMax& a) {
  const cuda::Extent e = cuda::extent_of({a.x});
  const Tensor parts = backend_.workspace({cuda::amax_blocks_for(a.x.count())}, DType::i32);
  if (backend_.planning()) return;
  dispatch<float, fp16, bf16>(a.x.dtype(), "abs_max", [&]<class T>() {
    cuda::dispatch_vectors<T>(e, {a.x}, [&]<int N>() {
      cuda::launch(backend_.runtime(), cuda::largest_kernel<T, N>, dim3(unsigned(parts.count())),
                   dim3(cuda::amax_threads), cuda::amax_shared, parts.data<int32_t>(), cuda::rows_of<const T>(a.x),
                   e.rows, e.cols / N);
    });
  });
  cuda::finish_largest(backend_.runtime(), a.amax, parts);
}

void CudaCast::quantise(const Quantise& a) {
  const Tensor scales = backend_.workspace({a.by_rows ? a.x.rows() : 1}, DType::f32);
  const Tensor parts = a.amax ? backend_.workspace({cuda::amax_blocks_for(a.x.count())}, DType::i32) : Tensor();
  if (backend_.planning()) return;
  dispatch<e4m3, e5m2, int8_t>(a.codes, "quantise", [&]<class Code>() {
    dispatch<float, fp16, bf16>(a.x.dtype(), "quantise",
                                [&]<class T>() { cuda::quantise<Code, T>(backend_.runtime(), a, scales, parts); });
  });
}

void CudaCast::update_scales(const UpdateScales& a) {
  if (backend_.planning()) return;
  cuda::launch(backend_.runtime(), cuda::update_scales_kernel, dim3(unsigned(a.amax.count())), dim3(cuda::amax_threads),
               cuda::amax_shared, a.state, cuda::rows_of<float>(a.history), a.scale.data<float>(), a.amax.data<float>(),
               int(a.history.cols()), a.codes, a.margin);
}

}  // namespace mixtape
