#include "train/parallel/shared_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

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
    return file;
  }
  file.descriptor_ = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
  struct stat status {};
  const bool seen =
      file.descriptor_ >= 0 && ::fstat(file.descriptor_, &status) == 0 && uint64_t(status.st_size) == bytes;
  if (!on_any(ranks, !seen)) return file;
  if (ranks.rank() == 0) ::unlink(path.c_str());
  return {};
}

void SharedFile::keep_error(const char* action) {
  if (error_.empty())
    error_ = fmt::format("rank {} cannot {} {}: {}", ranks_->rank(), action, path_.string(), std::strerror(errno));
}

void SharedFile::write(uint64_t at, std::span<const std::byte> bytes) {
  while (!bytes.empty() && error_.empty() && descriptor_ >= 0) {
    const ssize_t written = ::pwrite(descriptor_, bytes.data(), bytes.size(), off_t(at));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return keep_error("write");
    bytes = bytes.subspan(size_t(written));
    at += uint64_t(written);
  }
}

FileRecord SharedFile::finish() {
  if (descriptor_ < 0) return {};
  if (::fsync(descriptor_) != 0) keep_error("flush");
  if (::close(std::exchange(descriptor_, -1)) != 0) keep_error("close");
  const std::string error = first_text(*ranks_, error_);
  if (ranks_->rank() > 0) return {};
  if (!error.empty()) throw CheckpointError("{}", error);
  return hash_file(path_);
}

}  // namespace mixtape
