// The bytes of a file, decompressed if it is gzip or zstd (recognised by its first bytes, not by its name).
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>

namespace mixtape {

class ByteStream {
 public:
  virtual ~ByteStream() = default;

  // Fills a part of `out` from the front and returns its size; 0 only at the end. Throws DataError for a file that is
  // truncated or damaged.
  virtual size_t read(std::span<char> out) = 0;
  // Bytes of the file consumed so far, before decompression.
  virtual uint64_t position() const = 0;

  static std::unique_ptr<ByteStream> open(const std::filesystem::path& path);
};

}  // namespace mixtape
