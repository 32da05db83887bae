// One file that all ranks write, each what it has of it, on a file system that all of them see.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "core/communicator.h"
#include "train/checkpoint/file.h"

namespace mixtape {

class SharedFile {
 public:
  // All ranks, with one path, and the beginning and the size that rank 0 gives the file, all of whose space is reserved
  // so that a full disk is found at once. None on every rank if some rank does not see the file, which is then gone
  // again. Where rank 0 cannot make it, it throws CheckpointError, and the others get a file that takes nothing.
  static std::optional<SharedFile> create(Communicator& ranks, const std::filesystem::path& path,
                                          std::string_view beginning, uint64_t bytes);
  SharedFile(SharedFile&& other) noexcept;
  SharedFile& operator=(SharedFile&&) = delete;
  ~SharedFile();

  // An error is kept for finish(), so that no rank leaves the others alone.
  void write(uint64_t at, std::span<const std::byte> bytes);
  // All ranks: flushes it to the disk. Rank 0 then reads it for its hash, and throws CheckpointError where any rank
  // could not write; others return nothing.
  FileRecord finish();

 private:
  SharedFile(Communicator& ranks, std::filesystem::path path) : ranks_(&ranks), path_(std::move(path)) {}
  void keep_error(const char* action);

  Communicator* ranks_;
  std::filesystem::path path_;
  int descriptor_ = -1;
  std::string error_;
};

}  // namespace mixtape
