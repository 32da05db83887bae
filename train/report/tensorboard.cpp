#include "train/report/tensorboard.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "core/base/error.h"

namespace mixtape {
namespace {

constexpr std::array<uint32_t, 256> crc_table = [] {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t crc = i;
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0x82F63B78u : 0u);  // the polynomial, reflected
    table[i] = crc;
  }
  return table;
}();

template <class Integer>
std::string little_endian(Integer value) {
  std::string bytes;
  for (size_t i = 0; i < sizeof(value); ++i) bytes += char(value >> (8 * i) & 0xFF);
  return bytes;
}

// The little of protocol buffers that events need. A field is a key (number << 3 | wire type) and its payload.
class Message {
 public:
  Message& integer(int field, uint64_t value) { return key(field, 0), varint(value), *this; }
  Message& float64(int field, double value) {
    return key(field, 1), bytes_ += little_endian(std::bit_cast<uint64_t>(value)), *this;
  }
  Message& float32(int field, float value) {
    return key(field, 5), bytes_ += little_endian(std::bit_cast<uint32_t>(value)), *this;
  }
  Message& text(int field, std::string_view value) {
    key(field, 2);
    varint(value.size());
    bytes_ += value;
    return *this;
  }
  Message& message(int field, const Message& value) { return text(field, value.bytes_); }
  const std::string& bytes() const { return bytes_; }

 private:
  void key(int field, int wire_type) { varint(uint64_t(field) << 3 | uint64_t(wire_type)); }
  void varint(uint64_t value) {
    for (; value >= 0x80; value >>= 7) bytes_ += char(value | 0x80);
    bytes_ += char(value);
  }
  std::string bytes_;
};

Message event(int64_t step) {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  Message message;
  message.float64(1, std::chrono::duration<double>(now).count());
  if (step != 0) message.integer(2, uint64_t(step));
  return message;
}

std::filesystem::path new_file(const std::filesystem::path& directory) {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const int64_t milliseconds = std::chrono::duration_cast<std::chrono::milliseconds>(now).count();
  // TensorBoard reads the files of a directory in the order of their names.
  return directory / fmt::format("events.out.tfevents.{:010}.mixtape.{:03}.{}", milliseconds / 1000,
                                 milliseconds % 1000, ::getpid());
}

}  // namespace

uint32_t crc32c(std::string_view bytes) {
  uint32_t crc = 0xFFFFFFFFu;
  for (const char byte : bytes) crc = crc >> 8 ^ crc_table[(crc ^ uint8_t(byte)) & 0xFF];
  return ~crc;
}

uint32_t masked_crc32c(std::string_view bytes) { return std::rotr(crc32c(bytes), 15) + 0xA282EAD8u; }

TensorBoardWriter::TensorBoardWriter(const std::filesystem::path& directory, int64_t resumed_at) {
  std::error_code ignored;  // what is wrong shows when the file is opened
  std::filesystem::create_directories(directory, ignored);
  file_ = new_file(directory);
  fd_ = ::open(file_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (fd_ < 0) throw Error("{}: cannot be created: {}", file_.string(), std::strerror(errno));
  record(event(0).text(3, "brain.Event:2").bytes());
  // SessionLog {1: status = START}: earlier files' events from this step on are superseded.
  if (resumed_at > 0) record(event(resumed_at + 1).message(7, Message().integer(1, 1)).bytes());
  flush();
}

TensorBoardWriter::~TensorBoardWriter() {
  flush();
  ::close(fd_);
}

void TensorBoardWriter::scalar(std::string_view tag, int64_t step, double value) {
  const Message summary = Message().message(1, Message().text(1, tag).float32(2, float(value)));
  record(event(step).message(5, summary).bytes());
}

void TensorBoardWriter::text(std::string_view tag, int64_t step, std::string_view markdown) {
  constexpr int data_class_tensor = 2, dt_string = 7;
  const Message metadata = Message().message(1, Message().text(1, "text")).integer(4, data_class_tensor);
  const Message tensor = Message().integer(1, dt_string).message(2, Message()).text(8, markdown);  // a scalar's shape
  const Message value = Message().text(1, tag).message(8, tensor).message(9, metadata);
  record(event(step).message(5, Message().message(1, value)).bytes());
}

void TensorBoardWriter::record(std::string_view event) {
  const std::string length = little_endian(uint64_t(event.size()));
  pending_ += length + little_endian(masked_crc32c(length));
  pending_ += event;
  pending_ += little_endian(masked_crc32c(event));
  if (pending_.size() > 1 << 20) flush();
}

void TensorBoardWriter::flush() {
  struct stat before;
  const bool sized = ::fstat(fd_, &before) == 0;
  size_t written = 0;
  while (written < pending_.size()) {
    const ssize_t n = ::write(fd_, pending_.data() + written, pending_.size() - written);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    written += size_t(n);
  }
  if (written < pending_.size()) {
    // A reader stops at a torn record, so what follows it would never be seen.
    if (written > 0 && sized) [[maybe_unused]]
      const int ignored = ::ftruncate(fd_, before.st_size);
    ++lost_flushes_;
  }
  pending_.clear();
}

}  // namespace mixtape
