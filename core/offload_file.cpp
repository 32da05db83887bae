#include "core/offload_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

namespace mixtape {
namespace {

double mebibytes(int64_t bytes) { return double(bytes) / (1 << 20); }

// A new file without a name.
int open_nameless(const std::string& directory) {
  std::error_code error;
  std::filesystem::create_directories(directory, error);  // where that fails, so does what follows
  std::string path = (std::filesystem::path(directory) / "offload-XXXXXX").string();
  const int descriptor = mkostemp(path.data(), O_CLOEXEC);
  if (descriptor < 0)
    throw ConfigError(
        "memory.offload: no file can be made in {}: {}; set memory.offload_directory to a directory on "
        "a local disk",
        directory, std::strerror(errno));
  unlink(path.c_str());
  return descriptor;
}

}  // namespace

OffloadFile::OffloadFile(const OffloadRoom& room) : room_(room), descriptor_(open_nameless(room.place.directory)) {
  int error = 0;
  do error = posix_fallocate(descriptor_, 0, std::max<int64_t>(room.bytes, 1));
  while (error == EINTR);
  if (error != 0) {
    close(descriptor_);
    throw ConfigError(
        "memory.offload: {:.1f} MiB for {} in {}: {}; free room on that disk, set memory.offload_directory to another "
        "one, or memory.offload to none",
        mebibytes(room.bytes), room.what, room.place.directory, std::strerror(error));
  }
  thread_ = std::thread([this] { run(); });
}

OffloadFile::~OffloadFile() {
  {
    const std::lock_guard lock(mutex_);
    ended_ = true;
  }
  asked_changed_.notify_all();
  thread_.join();
  close(descriptor_);
}

Offload::Ticket OffloadFile::ask(const Request& request) {
  std::unique_lock lock(mutex_);
  done_changed_.wait(lock, [&] { return asked_ - done_ < int64_t(requests_.size()) || !error_.empty(); });
  if (!error_.empty()) throw Error("{}", error_);
  requests_[size_t(asked_ % int64_t(requests_.size()))] = request;
  asked_changed_.notify_one();
  ++asked_;
  if (request.writes) stores_asked_ = asked_;
  return asked_;
}

Offload::Ticket OffloadFile::fetch(const Tensor& to, int64_t at) {
  return ask({.writes = false, .memory = to.raw(), .at = at, .bytes = to.bytes()});
}

Offload::Ticket OffloadFile::ask_to_store(int64_t at, const Tensor& from) {
  return ask({.writes = true, .memory = from.raw(), .at = at, .bytes = from.bytes()});
}

void OffloadFile::store(int64_t at, const Tensor& from) { ask_to_store(at, from); }

void OffloadFile::wait(Ticket ticket) {
  std::unique_lock lock(mutex_);
  done_changed_.wait(lock, [&] { return done_ >= ticket || !error_.empty(); });
  if (!error_.empty()) throw Error("{}", error_);
}

void OffloadFile::wait_for_stores() {
  mutex_.lock();
  const Ticket last = stores_asked_;
  mutex_.unlock();
  wait(last);
}

void OffloadFile::finish() {
  mutex_.lock();
  const Ticket last = asked_;
  mutex_.unlock();
  wait(last);
}

void OffloadFile::check() { wait(0); }

void OffloadFile::read(void* to, int64_t at, int64_t bytes) {
  wait(ask({.writes = false, .memory = static_cast<std::byte*>(to), .at = at, .bytes = bytes}));
}

void OffloadFile::host_write(int64_t at, const void* from, int64_t bytes) {
  // Which is only read.
  auto* const memory = static_cast<std::byte*>(const_cast<void*>(from));
  wait(ask({.writes = true, .memory = memory, .at = at, .bytes = bytes}));
}

void OffloadFile::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    asked_changed_.wait(lock, [&] { return ended_ || asked_ > done_; });
    if (ended_) return;  // what is left would go to a file that nobody will read
    const Request next = requests_[size_t(done_ % int64_t(requests_.size()))];
    lock.unlock();
    std::string error = carry_out(next);
    lock.lock();
    ++done_;
    if (!error.empty()) error_ = std::move(error);
    done_changed_.notify_all();
    if (!error_.empty()) return;
  }
}

std::string OffloadFile::carry_out(const Request& request) const {
  for (int64_t at = 0; at < request.bytes;) {
    const auto left = size_t(request.bytes - at);
    const off_t place = request.at + at;
    const ssize_t n = request.writes ? pwrite(descriptor_, request.memory + at, left, place)
                                     : pread(descriptor_, request.memory + at, left, place);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0)
      return fmt::format(
          "memory.offload: {} {:.1f} MiB of {} in {}: {}; the last checkpoint is as it was, and the same command goes "
          "on "
          "from there",
          request.writes ? "writing" : "reading", mebibytes(request.bytes), room_.what, room_.place.directory,
          n < 0 ? std::strerror(errno) : "the file ends before");
    at += n;
  }
  return {};
}

}  // namespace mixtape
