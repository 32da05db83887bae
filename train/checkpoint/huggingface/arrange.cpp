#include "train/checkpoint/huggingface/arrange.h"

#include <algorithm>
#include <cstring>

#include "core/base/dispatch.h"

namespace mixtape::huggingface {
namespace {

// BLOOM: row (head, part, i) of the file is row (part, head, i) of the parameter; part is q, k or v.
template <class Copy>
void for_each_head_part(const TensorMapping& m, Copy&& copy) {
  const int64_t width = m.rows / (3 * m.n_heads);
  for (int64_t head = 0; head < m.n_heads; ++head)
    for (int64_t part = 0; part < 3; ++part) copy((head * 3 + part) * width, (part * m.n_heads + head) * width, width);
}

// target[c][r] = source[r][c], in tiles that both fit the first-level cache.
template <class T>
void transpose(const std::byte* source, std::byte* target, int64_t rows, int64_t cols) {
  constexpr int64_t tile = 32;
  for (int64_t r0 = 0; r0 < rows; r0 += tile)
    for (int64_t c0 = 0; c0 < cols; c0 += tile)
      for (int64_t c = c0; c < std::min(c0 + tile, cols); ++c)
        for (int64_t r = r0; r < std::min(r0 + tile, rows); ++r)
          std::memcpy(target + (c * rows + r) * int64_t(sizeof(T)), source + (r * cols + c) * int64_t(sizeof(T)),
                      sizeof(T));
}

void transpose(int64_t element, const std::byte* source, std::byte* target, int64_t rows, int64_t cols) {
  switch (element) {
    case 1:
      return transpose<uint8_t>(source, target, rows, cols);
    case 2:
      return transpose<uint16_t>(source, target, rows, cols);
    case 4:
      return transpose<uint32_t>(source, target, rows, cols);
    case 8:
      return transpose<uint64_t>(source, target, rows, cols);
    default:
      throw Error("transpose: elements of {} bytes", element);
  }
}

}  // namespace

int64_t row_elements(const TensorMapping& m) {
  if (m.shape.size() < 2) return 1;
  return m.arrangement == Arrangement::transpose ? m.shape[0] : m.shape[1];
}

void to_file(const TensorMapping& m, int64_t element, std::span<const std::byte> parameter, std::span<std::byte> file) {
  const int64_t row = row_elements(m) * element;
  switch (m.arrangement) {
    case Arrangement::rows:
      std::memcpy(file.data(), parameter.data() + m.first_row * row, size_t(m.rows * row));
      break;
    case Arrangement::transpose:
      transpose(element, parameter.data(), file.data(), m.shape[1], m.shape[0]);
      break;
    case Arrangement::by_head:
      for_each_head_part(m, [&](int64_t in_file, int64_t in_parameter, int64_t rows) {
        std::memcpy(file.data() + in_file * row, parameter.data() + in_parameter * row, size_t(rows * row));
      });
      break;
    case Arrangement::zeros:
      std::fill(file.begin(), file.end(), std::byte{0});
  }
}

void from_file(const TensorMapping& m, int64_t element, std::span<const std::byte> file,
               std::span<std::byte> parameter) {
  const int64_t row = row_elements(m) * element;
  switch (m.arrangement) {
    case Arrangement::rows:
      std::memcpy(parameter.data() + m.first_row * row, file.data(), size_t(m.rows * row));
      break;
    case Arrangement::transpose:
      transpose(element, file.data(), parameter.data(), m.shape[0], m.shape[1]);
      break;
    case Arrangement::by_head:
      for_each_head_part(m, [&](int64_t in_file, int64_t in_parameter, int64_t rows) {
        std::memcpy(parameter.data() + in_parameter * row, file.data() + in_file * row, size_t(rows * row));
      });
      break;
    case Arrangement::zeros:
      break;
  }
}

void convert(DType from, std::span<const std::byte> source, DType to, std::span<std::byte> target) {
  if (from == to) {
    if (!source.empty()) std::memcpy(target.data(), source.data(), source.size());
    return;
  }
  const size_t count = source.size() / size_t(size_of(from));
  dispatch<float, fp16, bf16>(from, "convert", [&]<class From>() {
    dispatch<float, fp16, bf16>(to, "convert", [&]<class To>() {
      for (size_t i = 0; i < count; ++i) {
        From value;
        std::memcpy(&value, source.data() + i * sizeof(From), sizeof(From));
        const To rounded(static_cast<float>(value));
        std::memcpy(target.data() + i * sizeof(To), &rounded, sizeof(To));
      }
    });
  });
}

}  // namespace mixtape::huggingface
