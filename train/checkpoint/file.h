// Durable files: what a checkpoint is made of.
//
// Every function throws CheckpointError with the path and the system's reason ("No space left on device").
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace mixtape {

// A file's name within its directory, its size, and the XXH3-128 of its bytes as 32 hexadecimal digits.
struct FileRecord {
  std::string name;
  uint64_t bytes = 0;
  std::string xxh3;
  friend bool operator==(const FileRecord&, const FileRecord&) = default;
};

// A streaming XXH3-128.
class Hasher {
 public:
  Hasher();
  ~Hasher();
  Hasher(Hasher&&) noexcept;
  Hasher& operator=(Hasher&&) noexcept;
  void update(std::span<const std::byte> bytes);
  std::string hex() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// A new file, in place of one of that name, that is hashed while it is written. finish() flushes it to the disk;
// without finish() the file is left incomplete, for the owner of the directory to remove.
class DurableFile {
 public:
  explicit DurableFile(std::filesystem::path path);
  ~DurableFile();
  DurableFile(const DurableFile&) = delete;
  DurableFile& operator=(const DurableFile&) = delete;
  void write(std::span<const std::byte> bytes);
  void write(std::string_view text) { write(std::as_bytes(std::span(text.data(), text.size()))); }
  FileRecord finish();

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
  uint64_t bytes_ = 0;
  Hasher hasher_;
};

// A read-only memory map of a whole file. The file must not be truncated while it is mapped.
class FileMap {
 public:
  explicit FileMap(const std::filesystem::path& path);
  ~FileMap();
  FileMap(FileMap&&) noexcept;
  FileMap& operator=(FileMap&&) noexcept;
  std::span<const std::byte> bytes() const { return {data_, size_}; }

 private:
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

FileRecord write_text_file(const std::filesystem::path& path, std::string_view text);
// The whole file as text; refuses one that is larger than `limit` bytes.
std::string read_text_file(const std::filesystem::path& path, uint64_t limit = 64 << 20);
// Copies a file durably, under the name that `to` gives it.
FileRecord copy_file_durably(const std::filesystem::path& from, const std::filesystem::path& to);
FileRecord hash_file(const std::filesystem::path& path);
// Makes a directory's entries (new files, renames) durable.
void sync_directory(const std::filesystem::path& path);

}  // namespace mixtape
