// Conversions between element types, sums, and the largest magnitude.
//
// Elementwise and bound by memory: a conversion moves n (sizeof(From) + sizeof(To)) bytes, an addition 3 n sizeof(T),
// the largest magnitude n sizeof(T), nothing where a conversion finds it by the way; at most two FLOPs an element.
#include "cuda/largest.h"

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

}  // namespace mixtape
