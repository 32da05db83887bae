#include "train/checkpoint/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "core/base/error.h"
#include "train/checkpoint/safetensors_header.h"

namespace mixtape {

static_assert(std::endian::native == std::endian::little,
              "the format is little-endian, and is read without conversion");

namespace {

struct TypeInfo {
  std::string_view name;
  int64_t size;
  std::optional<DType> memory;
};

const TypeInfo& info(StoredType type) {  // in the order of StoredType
  static constexpr TypeInfo table[] = {
      {"BOOL", 1, {}},
      {"U8", 1, DType::u8},
      {"I8", 1, DType::i8},
      {"F8_E5M2", 1, DType::e5m2},
      {"F8_E4M3", 1, DType::e4m3},
      {"I16", 2, {}},
      {"U16", 2, DType::u16},
      {"F16", 2, DType::f16},
      {"BF16", 2, DType::bf16},
      {"I32", 4, DType::i32},
      {"U32", 4, {}},
      {"F32", 4, DType::f32},
      {"F64", 8, {}},
      {"I64", 8, DType::i64},
      {"U64", 8, {}},
  };
  return table[int(type)];
}

template <class T>
void widen(std::span<const std::byte> bytes, std::span<float> out) {
  for (size_t i = 0; i < out.size(); ++i) {
    T value;
    std::memcpy(&value, bytes.data() + i * sizeof(T), sizeof(T));
    out[i] = float(value);
  }
}

}  // namespace

int64_t size_of(StoredType type) { return info(type).size; }
std::string_view name_of(StoredType type) { return info(type).name; }
std::optional<DType> memory_type(StoredType type) { return info(type).memory; }

StoredType stored_type(DType type) {
  for (int i = 0;; ++i)
    if (info(StoredType(i)).memory == type) return StoredType(i);
}

std::string text_of(const Extents& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

int64_t count_of(const Extents& shape) {
  int64_t count = 1;
  for (int64_t extent : shape) count *= extent;
  return count;
}

SafetensorsFile SafetensorsFile::open(const std::filesystem::path& path) {
  auto map = std::make_shared<FileMap>(path);
  SafetensorsFile file = parse(map->bytes(), path.string());
  file.map_ = std::move(map);
  return file;
}

SafetensorsFile SafetensorsFile::parse(std::span<const std::byte> bytes, std::string what) {
  if (bytes.size() < 8) throw CheckpointError("{}: {} bytes are too few for a safetensors file", what, bytes.size());
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, bytes.data(), 8);
  if (header_bytes > safetensors::max_header_bytes || header_bytes > bytes.size() - 8)
    throw CheckpointError(
        "{}: a header of {} bytes is announced, the file has {} and {} is the limit; it is damaged or not a "
        "safetensors file",
        what, header_bytes, bytes.size(), safetensors::max_header_bytes);
  const std::string_view header(reinterpret_cast<const char*>(bytes.data()) + 8, header_bytes);
  const auto data = bytes.subspan(8 + header_bytes);
  safetensors::Header parsed = safetensors::parse_header(header, data.size(), what);

  SafetensorsFile file;
  file.what_ = std::move(what);
  file.metadata_ = std::move(parsed.metadata);
  for (safetensors::Entry& entry : parsed.entries) {
    file.index_[entry.name] = file.tensors_.size();
    file.tensors_.push_back({std::move(entry.name), entry.type, std::move(entry.shape),
                             data.subspan(entry.begin, entry.end - entry.begin)});
  }
  return file;
}

const StoredTensor* SafetensorsFile::find(std::string_view name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &tensors_[found->second];
}

const StoredTensor& SafetensorsFile::at(std::string_view name) const {
  if (const StoredTensor* tensor = find(name)) return *tensor;
  throw CheckpointError("{}: there is no tensor '{}' in it", what_, name);
}

void read_fp32(const StoredTensor& tensor, std::span<float> out) {
  if (int64_t(out.size()) != count_of(tensor.shape))
    throw Error("read_fp32: {} has {} elements, the buffer {}", tensor.name, count_of(tensor.shape), out.size());
  switch (tensor.type) {
    case StoredType::f32:
      return widen<float>(tensor.data, out);
    case StoredType::f16:
      return widen<fp16>(tensor.data, out);
    case StoredType::bf16:
      return widen<bf16>(tensor.data, out);
    case StoredType::e4m3:
      return widen<e4m3>(tensor.data, out);
    case StoredType::e5m2:
      return widen<e5m2>(tensor.data, out);
    case StoredType::f64:
      return widen<double>(tensor.data, out);
    default:
      throw CheckpointError("tensor '{}' is {}, expected floating-point numbers", tensor.name, name_of(tensor.type));
  }
}

TensorSource tensor_source(std::string name, DType type, Extents shape, const void* data) {
  const size_t bytes = size_t(count_of(shape) * size_of(type));
  auto produce = [data, bytes](const ByteSink& sink) { sink({static_cast<const std::byte*>(data), bytes}); };
  return {std::move(name), stored_type(type), std::move(shape), std::move(produce)};
}

namespace {

// Sorts tensors as a file has them, and says where each is within the data; `what` for errors.
std::vector<safetensors::Entry> place(std::vector<TensorSource>& tensors, const std::string& what) {
  // Large elements first: with the header a multiple of 8 long, every tensor is aligned to its own elements.
  std::ranges::sort(tensors, [](const TensorSource& a, const TensorSource& b) {
    return a.type != b.type ? a.type > b.type : a.name < b.name;
  });
  std::vector<safetensors::Entry> entries;
  uint64_t position = 0;
  for (const TensorSource& tensor : tensors) {
    if (!entries.empty() && entries.back().name == tensor.name)
      throw Error("{}: two tensors are named '{}'", what, tensor.name);
    const uint64_t end = position + safetensors::bytes_of(what, tensor.name, tensor.type, tensor.shape);
    entries.push_back({tensor.name, tensor.type, tensor.shape, position, end});
    position = end;
  }
  return entries;
}

const std::map<std::string, std::string> usual_metadata = {{"format", "pt"}};

}  // namespace

SafetensorsLayout layout_safetensors(std::vector<TensorSource> tensors) {
  const std::vector<safetensors::Entry> entries = place(tensors, "a checkpoint");
  SafetensorsLayout layout{.header = safetensors::format_header(entries, usual_metadata)};
  for (const safetensors::Entry& entry : entries) layout.places[entry.name] = layout.header.size() + entry.begin;
  layout.bytes = layout.header.size() + (entries.empty() ? 0 : entries.back().end);
  return layout;
}

FileRecord write_safetensors(const std::filesystem::path& path, std::vector<TensorSource> tensors,
                             const std::map<std::string, std::string>& metadata) {
  const std::vector<safetensors::Entry> entries = place(tensors, path.string());
  DurableFile file(path);
  file.write(safetensors::format_header(entries, metadata));
  for (size_t i = 0; i < tensors.size(); ++i) {
    uint64_t left = entries[i].end - entries[i].begin;
    const auto check = [&](bool fits) {
      if (!fits)
        throw Error("{}: the source of '{}' gave another number of bytes than its shape", path.string(),
                    tensors[i].name);
    };
    tensors[i].produce([&](std::span<const std::byte> bytes) {
      check(bytes.size() <= left);
      left -= bytes.size();
      file.write(bytes);
    });
    check(left == 0);
  }
  return file.finish();
}

FileRecord write_alone(const std::filesystem::path& path, std::vector<TensorSource> tensors) {
  return write_safetensors(path, std::move(tensors), usual_metadata);
}

}  // namespace mixtape
