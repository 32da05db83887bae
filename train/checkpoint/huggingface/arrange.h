// Moving a parameter's rows into a file's order and back. Elements are opaque: only their size matters.
#pragma once

#include <cstdint>
#include <span>

#include "train/checkpoint/huggingface/model.h"

namespace mixtape::huggingface {

// The elements of one row of the parameter: 1 for a vector.
int64_t row_elements(const TensorMapping& mapping);

// `parameter` holds the whole parameter, `file` the whole tensor of the file.
void to_file(const TensorMapping& mapping, int64_t element, std::span<const std::byte> parameter,
             std::span<std::byte> file);
void from_file(const TensorMapping& mapping, int64_t element, std::span<const std::byte> file,
               std::span<std::byte> parameter);

// Element by element from one floating type to another, rounding once, to nearest even.
void convert(DType from, std::span<const std::byte> source, DType to, std::span<std::byte> target);

}  // namespace mixtape::huggingface
