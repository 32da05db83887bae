#include "train/parallel/shared_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "core/base/error.h"
#include "train/parallel/world.h"

namespace mixtape {
namespace {

// Rank 0's: the file with its beginning, the rest being there to be written. Throws CheckpointError.
void make(const std::filesystem::path& path, std::string_view beginning, uint64_t bytes) {
  {
    DurableFile file(path);
    file.write(beginning);
    file.finish();
  }
  const int descriptor = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
  int error = descriptor < 0 ? errno : ::posix_fallocate(descriptor, 0, off_t(bytes));
  // Some network file systems reserve nothing.
  if (error == EOPNOTSUPP || error == EINVAL) error = ::ftruncate(descriptor, off_t(bytes)) == 0 ? 0 : errno;
  if (descriptor >= 0) ::close(descriptor);
  if (error != 0) throw CheckpointError("cannot write {}: {}", path.string(), std::strerror(error));
}

}  // namespace

SharedFile::SharedFile(SharedFile&& other) noexcept
    : ranks_(other.ranks_),
      path_(std::move(other.path_)),
      descriptor_(std::exchange(other.descriptor_, -1)),
      seen_by_all_(other.seen_by_all_),
      error_(std::move(other.error_)) {}

SharedFile::~SharedFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

std::optional<SharedFile> SharedFile::create(Communicator& ranks, const std::filesystem::path& path,
                                             std::string_view beginning, uint64_t bytes) {
  SharedFile file(ranks, path);
  std::string error;
  if (ranks.rank() == 0) {
    try {
      make(path, beginning, bytes);
    } catch (const CheckpointError& e) {
      error = e.what();
    }
  }
  error = broadcast_text(ranks, std::move(error));
  if (!error.empty()) {
    if (ranks.rank() == 0) throw CheckpointError("{}", error);
    return {};
  }
  file.descriptor_ = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
  struct stat status {};
  const bool seen =
      file.descriptor_ >= 0 && ::fstat(file.descriptor_, &status) == 0 && uint64_t(status.st_size) == bytes;
  file.seen_by_all_ = !on_any(ranks, !seen);
  if (!file.seen_by_all_ && ranks.rank() > 0 && file.descriptor_ >= 0) ::close(std::exchange(file.descriptor_, -1));
  return file;
}

void SharedFile::keep_error(const char* action) {
  if (error_.empty())
    error_ = fmt::format("rank {} cannot {} {}: {}", ranks_->rank(), action, path_.string(), std::strerror(errno));
}

void SharedFile::write_here(uint64_t at, std::span<const std::byte> bytes) {
  while (!bytes.empty() && error_.empty()) {
    const ssize_t written = ::pwrite(descriptor_, bytes.data(), bytes.size(), off_t(at));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return keep_error("write");
    bytes = bytes.subspan(size_t(written));
    at += uint64_t(written);
  }
}

void SharedFile::write(const std::function<void(const Put&)>& put_all) {
  if (seen_by_all_ || ranks_->rank() == 0)
    put_all([this](uint64_t at, std::span<const std::byte> bytes) { write_here(at, bytes); });
  if (seen_by_all_) return;
  for (int r = 1; r < ranks_->size(); ++r) r == ranks_->rank() ? hand_over(put_all) : take_over(r);
}

namespace {

// Of what a rank hands over, at most so much at a time.
constexpr size_t most_bytes = 16 << 20;
struct Piece {
  uint64_t at = 0, bytes = 0;  // 0: there is no more
};

}  // namespace

void SharedFile::hand_over(const std::function<void(const Put&)>& put_all) {
  const auto send = [this](uint64_t at, std::span<const std::byte> bytes) {
    Piece piece{at, bytes.size()};
    ranks_->broadcast(std::as_writable_bytes(std::span(&piece, 1)), ranks_->rank());
    std::vector<std::byte> copy(bytes.begin(), bytes.end());
    ranks_->broadcast(copy, ranks_->rank());
  };
  put_all([&](uint64_t at, std::span<const std::byte> bytes) {
    for (; !bytes.empty(); bytes = bytes.subspan(std::min(most_bytes, bytes.size()))) {
      send(at, bytes.first(std::min(most_bytes, bytes.size())));
      at += std::min(most_bytes, bytes.size());
    }
  });
  Piece end;
  ranks_->broadcast(std::as_writable_bytes(std::span(&end, 1)), ranks_->rank());
}

// Others than rank 0 hear it, too, and forget it.
void SharedFile::take_over(int from) {
  std::vector<std::byte> bytes;
  for (;;) {
    Piece piece;
    ranks_->broadcast(std::as_writable_bytes(std::span(&piece, 1)), from);
    if (piece.bytes == 0) return;
    bytes.resize(piece.bytes);
    ranks_->broadcast(bytes, from);
    if (ranks_->rank() == 0) write_here(piece.at, bytes);
  }
}

FileRecord SharedFile::finish() {
  if (descriptor_ >= 0) {
    if (::fsync(descriptor_) != 0) keep_error("flush");
    if (::close(std::exchange(descriptor_, -1)) != 0) keep_error("close");
  }
  const std::string error = first_text(*ranks_, error_);
  if (ranks_->rank() > 0) return {};
  if (!error.empty()) throw CheckpointError("{}", error);
  return hash_file(path_);
}

namespace {

// What tells a file from another of the same name, as on a disk of another machine. A network's file system gives all
// machines the same.
struct Identity {
  uint64_t inode = 0, bytes = 0, seconds = 0, nanoseconds = 0;  // 0: there is none
  friend bool operator==(const Identity&, const Identity&) = default;
};

Identity identity_of(const std::filesystem::path& path) {
  struct stat s {};
  if (::stat(path.c_str(), &s) != 0) return {};
  return {uint64_t(s.st_ino), uint64_t(s.st_size), uint64_t(s.st_mtim.tv_sec), uint64_t(s.st_mtim.tv_nsec)};
}

}  // namespace

std::optional<SafetensorsFile> open_together(Communicator& ranks, const std::filesystem::path& path) {
  const std::filesystem::path of_first = broadcast_text(ranks, path.string());
  Identity first = identity_of(of_first);
  const Identity here = first;
  ranks.broadcast(std::as_writable_bytes(std::span(&first, 1)), 0);
  if (on_any(ranks, here != first)) return {};
  return SafetensorsFile::open(of_first);
}

}  // namespace mixtape
