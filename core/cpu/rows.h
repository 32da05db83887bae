// Tensors as rows, and how kernels cut them into work for threads.
#pragma once

#include "core/cpu/parallel.h"
#include "core/tensor.h"

namespace mixtape {

// The rows of a matrix, which may be a view; absent tensors give a null.
template <class T>
struct Rows {
  T* data = nullptr;
  int64_t stride = 0;

  Rows() = default;
  explicit Rows(const Tensor& t) : data(t ? t.data<std::remove_const_t<T>>() : nullptr), stride(t.row_stride()) {}
  explicit operator bool() const { return data != nullptr; }
  T* operator[](int64_t r) const { return data + r * stride; }
};

// About how many elements a thread should get at least: less is done sooner than a thread is woken.
inline constexpr int64_t elements_per_thread = 16384;

inline int64_t row_grain(int64_t cols) {
  return std::max<int64_t>(1, elements_per_thread / std::max<int64_t>(cols, 1));
}

// body(row, column, n) for pieces of an elementwise operation on tensors of one shape: element (row, column) of t is
// Rows(t)[row][column]. Where all are contiguous, pieces ignore rows (row is 0), so that narrow and one-dimensional
// tensors are cut well too.
template <class Body>
void parallel_pieces(std::initializer_list<Tensor> tensors, Body&& body) {
  const Tensor& first = *tensors.begin();
  bool contiguous = true;
  for (const Tensor& t : tensors) contiguous = contiguous && (!t || t.contiguous());
  if (contiguous) {
    parallel_for(first.count(), elements_per_thread,
                 [&](int64_t begin, int64_t end) { body(int64_t(0), begin, end - begin); });
  } else {
    parallel_for(first.rows(), row_grain(first.cols()), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) body(r, int64_t(0), first.cols());
    });
  }
}

}  // namespace mixtape
