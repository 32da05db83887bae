// One file that all ranks write, each what it has of it: at once on a file system that all of them see, else in turns
// through rank 0, which has it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "core/communicator.h"
#include "train/checkpoint/safetensors.h"

namespace mixtape {

class SharedFile {
 public:
  // All ranks, with one path, and the beginning and the size that rank 0 gives the file, all of whose space is reserved
  // so that a full disk is found at once. Where rank 0 cannot make it, it throws CheckpointError, and the others get
  // none.
  static std::optional<SharedFile> create(Communicator& ranks, const std::filesystem::path& path,
                                          std::string_view beginning, uint64_t bytes);
  SharedFile(SharedFile&& other) noexcept;
  SharedFile& operator=(SharedFile&&) = delete;
  ~SharedFile();

  // All ranks: each calls `put` with what it has, which may be nothing. An error is kept for finish(), so that no rank
  // leaves the others alone.
  using Put = std::function<void(uint64_t at, std::span<const std::byte> bytes)>;
  void write(const std::function<void(const Put&)>& put_all);
  // All ranks: flushes it to the disk. Rank 0 then reads it for its hash, and throws CheckpointError where any rank
  // could not write; others return nothing.
  FileRecord finish();

 private:
  SharedFile(Communicator& ranks, std::filesystem::path path) : ranks_(&ranks), path_(std::move(path)) {}
  void write_here(uint64_t at, std::span<const std::byte> bytes);
  void hand_over(const std::function<void(const Put&)>& put_all);
  void take_over(int from);
  void keep_error(const char* action);

  Communicator* ranks_;
  std::filesystem::path path_;
  int descriptor_ = -1;  // none: rank 0 has it
  bool seen_by_all_ = true;
  std::string error_;
};

// All ranks: rank 0's file, mapped, where all see that same file; others may pass any path. None where one does not.
std::optional<SafetensorsFile> open_together(Communicator& ranks, const std::filesystem::path& path);

}  // namespace mixtape
