// The extents of a tensor: at most four dimensions, row-major, the last one contiguous.
#pragma once

#include <fmt/format.h>

#include <array>
#include <cstdint>
#include <initializer_list>
#include <string>

#include "core/base/error.h"

namespace mixtape {

class Shape {
 public:
  static constexpr int max_rank = 4;

  Shape() = default;
  Shape(std::initializer_list<int64_t> extents) {
    if (extents.size() > max_rank)
      throw Error("shape: {} dimensions, at most {} are possible", extents.size(), max_rank);
    for (int64_t extent : extents) extents_[rank_++] = extent;
  }

  int rank() const { return rank_; }
  int64_t operator[](int i) const { return extents_[i]; }
  // The number of elements; 1 for a scalar (rank 0).
  int64_t count() const {
    int64_t n = 1;
    for (int i = 0; i < rank_; ++i) n *= extents_[i];
    return n;
  }
  // A tensor seen as a matrix: the last dimension is the columns, all others together the rows.
  int64_t cols() const { return rank_ == 0 ? 1 : extents_[rank_ - 1]; }
  int64_t rows() const {
    int64_t n = 1;
    for (int i = 0; i + 1 < rank_; ++i) n *= extents_[i];
    return n;
  }
  friend bool operator==(const Shape&, const Shape&) = default;

  std::string text() const {
    std::string s = "[";
    for (int i = 0; i < rank_; ++i) s += (i ? ", " : "") + std::to_string(extents_[i]);
    return s + "]";
  }

 private:
  std::array<int64_t, max_rank> extents_{};
  int rank_ = 0;
};

}  // namespace mixtape

template <>
struct fmt::formatter<mixtape::Shape> : fmt::formatter<std::string> {
  auto format(const mixtape::Shape& shape, format_context& context) const {
    return fmt::formatter<std::string>::format(shape.text(), context);
  }
};
