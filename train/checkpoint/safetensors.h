// The safetensors format: named tensors in one file, read without copying.
//
//   8 bytes   N, the length of the header, little-endian
//   N bytes   JSON: {"__metadata__": {text: text}, NAME: {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
//   ...} the rest  the tensors' bytes, row-major, little-endian; offsets count from here
//
// Source: https://github.com/huggingface/safetensors (README, "Format"). The reader trusts nothing in the file: what it
// refuses stands in docs/checkpoints.md, and tests/checkpoint/safetensors_test.cpp has a case for each. The writer's
// bytes are a function of the tensors alone, and equal those of the Python package.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/dtype.h"
#include "train/checkpoint/file.h"

namespace mixtape {

// The element types of the format; their order is the one in which a file holds them (from last to first).
enum class StoredType { boolean, u8, i8, e5m2, e4m3, i16, u16, f16, bf16, i32, u32, f32, f64, i64, u64 };

int64_t size_of(StoredType type);
std::string_view name_of(StoredType type);          // "F32", "BF16", ... as in the header
std::optional<DType> memory_type(StoredType type);  // none for bool, i16, u32, f64 and u64, which DType lacks
StoredType stored_type(DType type);

using Extents = std::vector<int64_t>;
std::string text_of(const Extents& shape);  // "[2, 3]"
int64_t count_of(const Extents& shape);     // 1 for a scalar

// A tensor in a file. `data` lies in the file's map, at any alignment, and lives as long as the file object.
struct StoredTensor {
  std::string name;
  StoredType type = StoredType::f32;
  Extents shape;
  std::span<const std::byte> data;
};

// One safetensors file, mapped into memory. Throws CheckpointError if anything in it is malformed.
class SafetensorsFile {
 public:
  static SafetensorsFile open(const std::filesystem::path& path);
  // Reads a file's bytes that lie in memory and outlive the result; `what` names them in errors.
  static SafetensorsFile parse(std::span<const std::byte> bytes, std::string what);

  const std::vector<StoredTensor>& tensors() const { return tensors_; }  // in the order of their data
  const StoredTensor* find(std::string_view name) const;                 // null if there is none
  const StoredTensor& at(std::string_view name) const;                   // CheckpointError if there is none
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

 private:
  std::string what_;
  std::shared_ptr<FileMap> map_;
  std::vector<StoredTensor> tensors_;
  std::map<std::string, size_t, std::less<>> index_;
  std::map<std::string, std::string> metadata_;
};

// The tensors of a model directory: model.safetensors, or the shards that model.safetensors.index.json names. A shard
// must lie in the directory itself, and hold exactly the tensors that the index says.
class SafetensorsModel {
 public:
  static SafetensorsModel open(const std::filesystem::path& directory);

  std::vector<std::string> names() const;  // sorted
  const StoredTensor* find(std::string_view name) const;
  const StoredTensor& at(std::string_view name) const;

 private:
  std::string what_;
  std::vector<SafetensorsFile> files_;
  std::map<std::string, const StoredTensor*, std::less<>> index_;
};

// The values as fp32: exact from F32, F16, BF16 and fp8, rounded to nearest from F64. `out` has the tensor's count.
void read_fp32(const StoredTensor& tensor, std::span<float> out);

// A tensor to be written: `produce` hands its bytes to the sink, in pieces of any size, in order.
using ByteSink = std::function<void(std::span<const std::byte>)>;
struct TensorSource {
  std::string name;
  StoredType type = StoredType::f32;
  Extents shape;
  std::function<void(const ByteSink&)> produce;
  std::string parameter = {};  // of the model that it holds, or a part of it; empty: none
};
// A source whose bytes lie in memory until the file is written.
TensorSource tensor_source(std::string name, DType type, Extents shape, const void* data);

// A file's header and where its tensors lie, before their bytes are known: as write_safetensors would have it.
struct SafetensorsLayout {
  std::string header;                      // with which the file begins
  std::map<std::string, uint64_t> places;  // of each tensor's first byte in the file
  uint64_t bytes = 0;                      // of the file
};
SafetensorsLayout layout_safetensors(std::vector<TensorSource> tensors);

// Writes one file, durably, hashing it on the way: header padded with blanks to a multiple of 8, metadata
// {"format": "pt"}, tensors by type and name. Fails if a source gives fewer or more bytes than its shape says.
FileRecord write_safetensors(const std::filesystem::path& path, std::vector<TensorSource> tensors,
                             const std::map<std::string, std::string>& metadata = {{"format", "pt"}});

// Writes a file of these tensors: write_safetensors, or what stands in its place.
using TensorWriter = std::function<FileRecord(const std::filesystem::path&, std::vector<TensorSource>)>;
FileRecord write_alone(const std::filesystem::path& path, std::vector<TensorSource> tensors);

// Writes model.safetensors, or, where the tensors' bytes exceed `max_shard_bytes`, shards and their index (as
// transformers names them). A tensor is never split.
std::vector<FileRecord> write_safetensors_model(const std::filesystem::path& directory,
                                                std::vector<TensorSource> tensors, uint64_t max_shard_bytes,
                                                const TensorWriter& write = write_alone);

}  // namespace mixtape
