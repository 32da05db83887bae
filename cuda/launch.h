// Launching a kernel, and what launchers share: how a tensor is cut into threads.
#pragma once

#include <initializer_list>

#include "core/base/dispatch.h"
#include "core/tensor.h"
#include "cuda/backend.h"
#include "cuda/device/vec.h"
#include "cuda/runtime.h"

#ifdef __CUDACC__
#include <type_traits>

#include "cuda/error.h"
#else
#include "cuda/emulator/launch.h"
#include "cuda/emulator/runtime.h"
#endif

namespace mixtape::cuda {

#ifdef __CUDACC__
template <class... P>
void launch(Runtime& runtime, void (*kernel)(P...), dim3 grid, dim3 threads, size_t shared_bytes,
            std::type_identity_t<P>... arguments) {
  constexpr size_t without_asking = 48 << 10;
  if (shared_bytes > without_asking)
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared_bytes)),
          "shared memory of a kernel");
  kernel<<<grid, threads, shared_bytes, static_cast<cudaStream_t>(runtime.stream())>>>(arguments...);
  check(cudaGetLastError(), "launch");
}
#else
template <class... P>
void launch(Runtime& runtime, void (*kernel)(P...), dim3 grid, dim3 threads, size_t shared_bytes,
            std::type_identity_t<P>... arguments) {
  emulator::queue(runtime, [=] { emulator::launch(kernel, grid, threads, shared_bytes, arguments...); });
}
#endif

constexpr int64_t divide_up(int64_t n, int64_t by) { return (n + by - 1) / by; }

template <class T>
Rows<T> rows_of(const Tensor& t) {
  return t ? Rows<T>{t.data<std::remove_const_t<T>>(), t.row_stride()} : Rows<T>{};
}
template <class T>
T* data_of(const Tensor& t) {
  return t ? t.data<std::remove_const_t<T>>() : nullptr;
}

// How elementwise kernels see tensors of one shape: as one long row where all are contiguous.
struct Extent {
  int64_t rows, cols;
};
inline Extent extent_of(std::initializer_list<Tensor> tensors) {
  const Tensor& first = *tensors.begin();
  for (const Tensor& t : tensors)
    if (t && !t.contiguous()) return {first.rows(), first.cols()};
  return {1, first.count()};
}

// True if all rows begin where `n` elements can be loaded at once, and are whole numbers of them.
inline bool vectors_fit(const Extent& e, int64_t n, std::initializer_list<Tensor> tensors) {
  if (e.cols % n) return false;
  for (const Tensor& t : tensors) {
    if (!t) continue;
    const int64_t bytes = std::min<int64_t>(16, n * size_of(t.dtype()));
    if (reinterpret_cast<uintptr_t>(t.raw()) % uintptr_t(bytes)) return false;
    if (e.rows > 1 && t.row_stride() * size_of(t.dtype()) % bytes) return false;
  }
  return true;
}

// body.operator()<N>() with as many elements of T as 16 bytes hold if the tensors allow it, else with 1.
template <class T, class Body>
void dispatch_vectors(const Extent& e, std::initializer_list<Tensor> tensors, Body&& body) {
  constexpr int n = 16 / sizeof(T);
  if (vectors_fit(e, n, tensors))
    body.template operator()<n>();
  else
    body.template operator()<1>();
}

// body(row, item) for each of `items` of each row.
template <class Body>
__global__ void elementwise_kernel(Body body, int64_t rows, int64_t items) {
  const int64_t item = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (item >= items) return;
  for (int64_t row = blockIdx.y; row < rows; row += gridDim.y) body(row, item);
}

template <class Body>
void elementwise(Runtime& runtime, int64_t rows, int64_t items, const Body& body) {
  constexpr int64_t threads = 256, most_rows = 65535;
  if (rows == 0 || items == 0) return;
  const int64_t block = std::min(threads, divide_up(items, warp_size) * warp_size);
  launch(runtime, elementwise_kernel<Body>,
         dim3(unsigned(divide_up(items, block)), unsigned(std::min(rows, most_rows))), dim3(unsigned(block)), 0, body,
         rows, items);
}

}  // namespace mixtape::cuda
