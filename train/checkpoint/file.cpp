#include "train/checkpoint/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "core/base/error.h"

namespace mixtape {
namespace {

[[noreturn]] void fail(const char* action, const std::filesystem::path& path) {
  throw CheckpointError("cannot {} {}: {}", action, path.string(), std::strerror(errno));
}

int open_or_fail(const std::filesystem::path& path, int flags, const char* action) {
  const int descriptor = ::open(path.c_str(), flags | O_CLOEXEC, 0666);
  if (descriptor < 0) fail(action, path);
  return descriptor;
}

}  // namespace

struct Hasher::State {
  XXH3_state_t* xxh = XXH3_createState();
  State() { XXH3_128bits_reset(xxh); }
  ~State() { XXH3_freeState(xxh); }
};

Hasher::Hasher() : state_(std::make_unique<State>()) {}
Hasher::~Hasher() = default;
Hasher::Hasher(Hasher&&) noexcept = default;
Hasher& Hasher::operator=(Hasher&&) noexcept = default;

void Hasher::update(std::span<const std::byte> bytes) {
  if (!bytes.empty()) XXH3_128bits_update(state_->xxh, bytes.data(), bytes.size());
}

std::string Hasher::hex() const {
  const XXH128_hash_t hash = XXH3_128bits_digest(state_->xxh);
  return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
}

DurableFile::DurableFile(std::filesystem::path path) : path_(std::move(path)) {
  // Replaced, not truncated: whoever has the old file mapped (it may be our own input) keeps it.
  if (::unlink(path_.c_str()) != 0 && errno != ENOENT) fail("replace", path_);
  descriptor_ = open_or_fail(path_, O_WRONLY | O_CREAT | O_EXCL, "create");
}

DurableFile::~DurableFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void DurableFile::write(std::span<const std::byte> bytes) {
  hasher_.update(bytes);
  bytes_ += bytes.size();
  while (!bytes.empty()) {
    const ssize_t written = ::write(descriptor_, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail("write", path_);
    bytes = bytes.subspan(size_t(written));
  }
}

FileRecord DurableFile::finish() {
  if (::fsync(descriptor_) != 0) fail("flush", path_);
  // close() can report an error that fsync() did not see on network file systems; the descriptor is gone either way.
  if (::close(std::exchange(descriptor_, -1)) != 0) fail("close", path_);
  return {path_.filename().string(), bytes_, hasher_.hex()};
}

FileMap::FileMap(const std::filesystem::path& path) {
  const int descriptor = open_or_fail(path, O_RDONLY, "open");
  struct stat status {};
  const bool known = ::fstat(descriptor, &status) == 0;
  const int error = errno;
  if (known && S_ISREG(status.st_mode) && status.st_size > 0) {
    void* map = ::mmap(nullptr, size_t(status.st_size), PROT_READ, MAP_PRIVATE, descriptor, 0);
    if (map != MAP_FAILED) data_ = static_cast<const std::byte*>(map), size_ = size_t(status.st_size);
  }
  const int map_error = errno;
  ::close(descriptor);
  errno = known ? map_error : error;
  if (!known) fail("examine", path);
  if (!S_ISREG(status.st_mode)) throw CheckpointError("{} is not a regular file", path.string());
  if (status.st_size > 0 && !data_) fail("map", path);
}

FileMap::~FileMap() {
  if (data_) ::munmap(const_cast<std::byte*>(data_), size_);
}

FileMap::FileMap(FileMap&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

FileMap& FileMap::operator=(FileMap&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

FileRecord write_text_file(const std::filesystem::path& path, std::string_view text) {
  DurableFile file(path);
  file.write(text);
  return file.finish();
}

std::string read_text_file(const std::filesystem::path& path, uint64_t limit) {
  const FileMap file(path);
  const auto bytes = file.bytes();
  if (bytes.size() > limit)
    throw CheckpointError("{} has {} bytes, at most {} are expected of such a file", path.string(), bytes.size(),
                          limit);
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

FileRecord copy_file_durably(const std::filesystem::path& from, const std::filesystem::path& to) {
  const FileMap source(from);
  DurableFile copy(to);
  copy.write(source.bytes());
  return copy.finish();
}

FileRecord hash_file(const std::filesystem::path& path) {
  const FileMap file(path);
  Hasher hasher;
  hasher.update(file.bytes());
  return {path.filename().string(), file.bytes().size(), hasher.hex()};
}

void sync_directory(const std::filesystem::path& path) {
  const int descriptor = open_or_fail(path, O_RDONLY | O_DIRECTORY, "open directory");
  const int result = ::fsync(descriptor);
  const int error = errno;
  ::close(descriptor);
  errno = error;
  // Some network file systems refuse to flush a directory; there the rename is as durable as it gets.
  if (result != 0 && errno != EINVAL && errno != EROFS) fail("flush directory", path);
}

}  // namespace mixtape
