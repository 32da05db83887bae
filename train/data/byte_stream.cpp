#include "train/data/byte_stream.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include <cerrno>
#include <cstring>
#include <string_view>
#include <vector>

#include "core/base/error.h"

namespace mixtape {
namespace {

constexpr size_t buffer_bytes = size_t(256) << 10;

class PlainStream final : public ByteStream {
 public:
  explicit PlainStream(std::filesystem::path path) : path_(std::move(path)) {
    fd_ = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd_ < 0) throw DataError("{}: cannot open: {}", path_.string(), std::strerror(errno));
  }
  ~PlainStream() override { ::close(fd_); }

  size_t read(std::span<char> out) override {
    ssize_t count;
    do count = ::read(fd_, out.data(), out.size());
    while (count < 0 && errno == EINTR);
    if (count < 0) throw DataError("{}: cannot read: {}", path_.string(), std::strerror(errno));
    position_ += uint64_t(count);
    return size_t(count);
  }
  uint64_t position() const override { return position_; }

 private:
  std::filesystem::path path_;
  int fd_;
  uint64_t position_ = 0;
};

// What both compressed formats share: input in blocks, and members or frames one after the other.
class CompressedStream : public ByteStream {
 public:
  explicit CompressedStream(const std::filesystem::path& path) : path_(path.string()), file_(path) {}
  uint64_t position() const override { return file_.position() - input_.size(); }

 protected:
  // Whether there is input left; reads the next block when the last is used up.
  bool refill() {
    if (!input_.empty()) return true;
    input_ = std::string_view(buffer_.data(), file_.read(buffer_));
    return !input_.empty();
  }
  [[noreturn]] void truncated() const {
    throw DataError("{}: ends in the middle of its compressed data: the file is incomplete", path_);
  }
  [[noreturn]] void damaged(const char* reason) const {
    throw DataError("{}: its compressed data is damaged near byte {} ({})", path_, position(), reason);
  }

  std::string path_;
  std::string_view input_;

 private:
  PlainStream file_;
  std::vector<char> buffer_ = std::vector<char>(buffer_bytes);
};

class GzipStream final : public CompressedStream {
 public:
  explicit GzipStream(const std::filesystem::path& path) : CompressedStream(path) {
    if (::inflateInit2(&inflater_, 15 + 16) != Z_OK) throw DataError("{}: zlib cannot start", path_);
  }
  ~GzipStream() override { ::inflateEnd(&inflater_); }

  size_t read(std::span<char> out) override {
    inflater_.next_out = reinterpret_cast<Bytef*>(out.data());
    inflater_.avail_out = uInt(out.size());
    while (inflater_.avail_out == out.size()) {
      if (!refill() && !pending_) {
        if (in_member_) truncated();
        return 0;
      }
      // gzip itself pads files with zeros on some media; they are no member.
      if (!in_member_ && input_.front() == '\0') {
        input_.remove_prefix(1);
        continue;
      }
      in_member_ = true;
      inflater_.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(input_.data()));
      inflater_.avail_in = uInt(input_.size());
      const int status = ::inflate(&inflater_, Z_NO_FLUSH);
      input_ = input_.substr(input_.size() - inflater_.avail_in);
      pending_ = inflater_.avail_out == 0 && status == Z_OK;
      if (status == Z_STREAM_END) {
        in_member_ = false;
        ::inflateReset(&inflater_);
      } else if (status != Z_OK && status != Z_BUF_ERROR) {
        damaged(inflater_.msg ? inflater_.msg : "zlib");
      }
    }
    return out.size() - inflater_.avail_out;
  }

 private:
  z_stream inflater_{};
  bool in_member_ = false;
  bool pending_ = false;  // the inflater may hold output that did not fit, though all input is consumed
};

class ZstdStream final : public CompressedStream {
 public:
  explicit ZstdStream(const std::filesystem::path& path) : CompressedStream(path), context_(ZSTD_createDCtx()) {}

  size_t read(std::span<char> out) override {
    ZSTD_outBuffer output{out.data(), out.size(), 0};
    while (output.pos == 0) {
      if (!refill() && !pending_) {
        if (in_frame_) truncated();
        return 0;
      }
      ZSTD_inBuffer input{input_.data(), input_.size(), 0};
      const size_t status = ZSTD_decompressStream(context_.get(), &output, &input);
      if (ZSTD_isError(status)) damaged(ZSTD_getErrorName(status));
      input_.remove_prefix(input.pos);
      in_frame_ = status != 0;
      pending_ = in_frame_ && output.pos == output.size;
    }
    return output.pos;
  }

 private:
  struct Free {
    void operator()(ZSTD_DCtx* context) const { ZSTD_freeDCtx(context); }
  };
  std::unique_ptr<ZSTD_DCtx, Free> context_;
  bool in_frame_ = false;
  bool pending_ = false;  // as in GzipStream
};

}  // namespace

std::unique_ptr<ByteStream> ByteStream::open(const std::filesystem::path& path) {
  // The first bytes are read twice, which a pipe does not allow.
  if (!std::filesystem::is_regular_file(path)) throw DataError("{}: no regular file", path.string());
  char first[4] = {};
  size_t count = 0;
  {
    PlainStream peek(path);
    while (count < sizeof first) {
      const size_t more = peek.read(std::span(first).subspan(count));
      if (more == 0) break;
      count += more;
    }
  }
  const std::string_view magic(first, count);
  if (magic.substr(0, 2) == "\x1f\x8b") return std::make_unique<GzipStream>(path);
  if (magic == "\x28\xb5\x2f\xfd") return std::make_unique<ZstdStream>(path);
  return std::make_unique<PlainStream>(path);
}

}  // namespace mixtape
