#include "train/data/output_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/base/error.h"

namespace mixtape {

OutputFile::OutputFile(std::filesystem::path path) : path_(std::move(path)), partial_(path_) {
  partial_ += partial_extension;
  fd_ = ::open(partial_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (fd_ < 0) fail("create");
}

OutputFile::~OutputFile() {
  if (fd_ < 0) return;
  ::close(fd_);
  ::unlink(partial_.c_str());
}

void OutputFile::write(std::span<const unsigned char> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd_, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) fail("write");
    bytes = bytes.subspan(size_t(written));
  }
}

void OutputFile::overwrite(std::span<const unsigned char> bytes, uint64_t offset) {
  while (!bytes.empty()) {
    const ssize_t written = ::pwrite(fd_, bytes.data(), bytes.size(), off_t(offset));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) fail("write");
    bytes = bytes.subspan(size_t(written));
    offset += uint64_t(written);
  }
}

void OutputFile::commit() {
  // Data first, then the name, then the directory: whatever instant the power fails, the name never shows half a file.
  if (::fsync(fd_) != 0) fail("sync");
  if (::rename(partial_.c_str(), path_.c_str()) != 0) fail("rename");
  ::close(fd_);
  fd_ = -1;
  const std::filesystem::path parent = path_.has_parent_path() ? path_.parent_path() : ".";
  const int directory = ::open(parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory < 0) fail("sync the directory of");
  const int result = ::fsync(directory);
  ::close(directory);
  // Some file systems cannot sync a directory and say EINVAL; there is nothing better to do on them.
  if (result != 0 && errno != EINVAL) fail("sync the directory of");
}

void OutputFile::fail(const char* action) const {
  throw DataError("{}: cannot {}: {}", partial_.string(), action, std::strerror(errno));
}

void write_file(const std::filesystem::path& path, std::string_view content) {
  OutputFile file(path);
  file.write({reinterpret_cast<const unsigned char*>(content.data()), content.size()});
  file.commit();
}

}  // namespace mixtape
