// Rows of a matrix, and loads and stores of several elements at once, as floats.
#pragma once

#include "cuda/device/types.h"

namespace mixtape::cuda {

// The alignment makes it one instruction of up to 16 bytes; the sanitizer sees a wrong address.
template <class T, int N>
struct alignas(N * sizeof(T) < 16 ? N * sizeof(T) : 16) Vec {
  T v[N];
};

template <class T, int N>
__device__ inline void load(float (&x)[N], const T* from) {
  const Vec<T, N> held = *reinterpret_cast<const Vec<T, N>*>(from);
#pragma unroll
  for (int i = 0; i < N; ++i) x[i] = to_float(held.v[i]);
}

template <class T, int N>
__device__ inline void store(T* to, const float (&x)[N]) {
  Vec<T, N> held;
#pragma unroll
  for (int i = 0; i < N; ++i) held.v[i] = from_float<T>(x[i]);
  *reinterpret_cast<Vec<T, N>*>(to) = held;
}

// Stores, or adds to what is there.
template <class T, int N>
__device__ inline void put(T* to, const float (&x)[N], bool accumulate) {
  if (!accumulate) return store(to, x);
  float sum[N];
  load(sum, to);
#pragma unroll
  for (int i = 0; i < N; ++i) sum[i] += x[i];
  store(to, sum);
}
template <class T>
__device__ inline void put(T* to, float x, bool accumulate) {
  *to = from_float<T>(accumulate ? to_float(*to) + x : x);
}

// The rows of a matrix, which may be a view; a null where the tensor is absent.
template <class T>
struct Rows {
  T* data = nullptr;
  int64_t stride = 0;
  __device__ explicit operator bool() const { return data != nullptr; }
  __device__ T* operator[](int64_t r) const { return data + r * stride; }
};

}  // namespace mixtape::cuda
