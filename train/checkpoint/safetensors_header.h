// The JSON header of a safetensors file: read with limits, written canonically.
//
// A hostile header must cost neither much memory nor much time: it is read as a stream of events that the grammar
// {NAME: {"dtype": text, "shape": [integers], "data_offsets": [integer, integer]}} admits one by one, so nothing nested
// deeper, longer or of another kind is ever built.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "train/checkpoint/safetensors.h"

namespace mixtape::safetensors {

constexpr uint64_t max_header_bytes = 100'000'000;  // the limit of the Python package
constexpr size_t max_rank = 16;

struct Entry {
  std::string name;
  StoredType type = StoredType::f32;
  Extents shape;
  uint64_t begin = 0, end = 0;  // within the data
};
struct Header {
  std::vector<Entry> entries;  // by offset; they fill `data_bytes` without holes or overlaps
  std::map<std::string, std::string> metadata;
};

// `text` is the JSON alone, `data_bytes` the number of bytes behind it. CheckpointError, beginning with `what`, if the
// header is anything but the description of exactly these bytes.
Header parse_header(std::string_view text, uint64_t data_bytes, const std::string& what);

// The header with its 8 bytes of length, for entries in this order.
std::string format_header(const std::vector<Entry>& entries, const std::map<std::string, std::string>& metadata);

// The bytes that a tensor takes. CheckpointError if that number, or an extent, is negative or does not fit 63 bits.
uint64_t bytes_of(const std::string& what, std::string_view name, StoredType type, const Extents& shape);

}  // namespace mixtape::safetensors
