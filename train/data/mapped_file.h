// A file mapped read-only. Token files are read in place, so opening 100 GB takes no memory and no time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>

namespace mixtape {

// Throws DataError if the file cannot be opened, is no regular file, or is empty. A file must not shrink while it is
// mapped: the system then ends the program with SIGBUS.
class MappedFile {
 public:
  explicit MappedFile(std::filesystem::path path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const unsigned char* data() const { return data_; }
  uint64_t size() const { return size_; }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  const unsigned char* data_ = nullptr;
  uint64_t size_ = 0;
};

}  // namespace mixtape
