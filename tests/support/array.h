// Float64 arrays: what references are written in.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "core/base/shape.h"

namespace mixtape {

class Array {
 public:
  Array() = default;
  explicit Array(Shape shape, double value = 0) : shape_(shape), values_(shape.count(), value) {}

  const Shape& shape() const { return shape_; }
  int64_t rows() const { return shape_.rows(); }
  int64_t cols() const { return shape_.cols(); }
  int64_t count() const { return int64_t(values_.size()); }
  double& operator[](int64_t i) { return values_[i]; }
  double operator[](int64_t i) const { return values_[i]; }
  double& operator()(int64_t r, int64_t c) { return values_[r * cols() + c]; }
  double operator()(int64_t r, int64_t c) const { return values_[r * cols() + c]; }

  // The largest magnitude; NaN if there is one.
  double max_abs() const {
    double most = 0;
    for (double v : values_) {
      if (std::isnan(v)) return v;
      most = std::max(most, std::abs(v));
    }
    return most;
  }

 private:
  Shape shape_;
  std::vector<double> values_;
};

using Arrays = std::vector<Array>;

}  // namespace mixtape
