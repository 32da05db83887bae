// A file that is complete or absent: written as PATH.partial, synced, renamed, and the rename synced too.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string_view>

namespace mixtape {

inline constexpr char partial_extension[] = ".partial";

// Throws DataError that names the file and the system's reason, such as a full disk.
class OutputFile {
 public:
  explicit OutputFile(std::filesystem::path path);
  ~OutputFile();  // removes the .partial file unless committed
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  void write(std::span<const unsigned char> bytes);  // at the end
  void overwrite(std::span<const unsigned char> bytes, uint64_t offset);
  void commit();

 private:
  [[noreturn]] void fail(const char* action) const;

  std::filesystem::path path_, partial_;
  int fd_ = -1;
};

void write_file(const std::filesystem::path& path, std::string_view content);

}  // namespace mixtape
