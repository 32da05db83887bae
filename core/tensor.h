// A tensor: shape, element type, and a place in device memory, shared by reference count.
//
// Rows are contiguous inside and may lie further apart than their width (row_stride), so that q, k and v are views of
// one packed matrix. An empty tensor (`Tensor{}`) means "absent" wherever an argument is optional. During a dry run
// data() is null; shapes and types are all there.
#pragma once

#include <span>

#include "core/base/dtype.h"
#include "core/base/shape.h"
#include "core/memory.h"

namespace mixtape {

class Tensor {
 public:
  Tensor() = default;
  // Memory of an arena, contiguous.
  Tensor(Storage storage, Shape shape, DType dtype)
      : storage_(std::move(storage)),
        data_(storage_.data()),
        shape_(shape),
        dtype_(dtype),
        row_stride_(shape.cols()),
        present_(true) {}
  // Memory that somebody else owns and keeps alive.
  Tensor(void* data, Shape shape, DType dtype)
      : data_(static_cast<std::byte*>(data)), shape_(shape), dtype_(dtype), row_stride_(shape.cols()), present_(true) {}

  explicit operator bool() const { return present_; }

  const Shape& shape() const { return shape_; }
  DType dtype() const { return dtype_; }
  int64_t rows() const { return shape_.rows(); }
  int64_t cols() const { return shape_.cols(); }
  int64_t count() const { return shape_.count(); }
  int64_t row_stride() const { return row_stride_; }  // in elements
  bool contiguous() const { return row_stride_ == cols() || rows() == 1; }
  int64_t bytes() const { return count() * size_of(dtype_); }

  template <class T>
  T* data() const {
    if (dtype_of<T> != dtype_) throw Error("tensor: {} read as {}", dtype_, dtype_of<T>);
    return reinterpret_cast<T*>(data_);
  }
  std::byte* raw() const { return data_; }

  // The same memory under another shape of equal count (contiguous tensors only).
  Tensor reshaped(Shape shape) const {
    if (shape.count() != count() || !contiguous()) throw Error("tensor: {} reshaped to {}", shape_, shape);
    Tensor t = *this;
    t.shape_ = shape;
    t.row_stride_ = shape.cols();
    t.value_ = -1;
    return t;
  }
  // Columns [begin, begin + count) as a view [rows, count].
  Tensor columns(int64_t begin, int64_t count) const {
    if (begin < 0 || begin + count > cols()) throw Error("tensor: columns {}+{} of {}", begin, count, shape_);
    Tensor t = *this;
    t.shape_ = {rows(), count};
    if (data_) t.data_ += begin * size_of(dtype_);
    t.value_ = -1;
    return t;
  }
  // Rows [begin, begin + count) as a view [count, cols].
  Tensor slice(int64_t begin, int64_t count) const {
    if (begin < 0 || begin + count > rows()) throw Error("tensor: rows {}+{} of {}", begin, count, shape_);
    Tensor t = *this;
    t.shape_ = {count, cols()};
    if (data_) t.data_ += begin * row_stride_ * size_of(dtype_);
    t.value_ = -1;
    return t;
  }

  // The value on the tape that this tensor holds; -1 for data that no gradient flows through.
  int value() const { return value_; }
  Tensor as_value(int value) const {
    Tensor t = *this;
    t.value_ = value;
    return t;
  }

  const Storage& storage() const { return storage_; }
  // Where it begins in its storage, in bytes; 0 in a plan.
  int64_t storage_offset() const { return data_ && storage_ ? data_ - storage_.data() : 0; }
  // The same shape, type and strides in other memory; without any, there is no data until it is given some.
  Tensor in(Storage storage, int64_t offset) const {
    Tensor t = *this;
    t.data_ = storage.data() ? storage.data() + offset : nullptr;
    t.storage_ = std::move(storage);
    return t;
  }

 private:
  Storage storage_;
  std::byte* data_ = nullptr;
  Shape shape_;
  DType dtype_ = DType::f32;
  int64_t row_stride_ = 0;
  int value_ = -1;
  bool present_ = false;
};

// How a kernel delivers a gradient: it stores (first writer), adds to what is there (later ones), or leaves it out
// (frozen weights, ids). Nobody zeroes first.
enum class Write { none, overwrite, accumulate };

struct Grad {
  Tensor tensor;
  Write write = Write::none;

  explicit operator bool() const { return write != Write::none; }
  bool accumulates() const { return write == Write::accumulate; }
  Grad columns(int64_t begin, int64_t count) const {
    return write == Write::none ? Grad{} : Grad{tensor.columns(begin, count), write};
  }
};

}  // namespace mixtape
