// A writer of TensorBoard event files, without TensorFlow.
//
// A file is a sequence of TFRecords: uint64 length, masked crc32c of those 8 bytes, the bytes, masked crc32c of the
// bytes, all little-endian. The bytes are a protocol buffer `Event` {1: wall_time double, 2: step int64, 3:
// file_version string, 5: Summary {1: Value {1: tag, 2: simple_value float, 8: tensor, 9: metadata}}};
// tensorboard/compat/proto/event.proto and summary.proto of TensorBoard name the fields.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace mixtape {

// The Castagnoli CRC (polynomial 0x1EDC6F41, reflected), as in RFC 3720; crc32c("123456789") = 0xE3069283.
uint32_t crc32c(std::string_view bytes);
// The rotation and offset that TFRecords apply, so that a CRC of data holding CRCs stays meaningful.
uint32_t masked_crc32c(std::string_view bytes);

// Appends to a new events.out.tfevents.* file in a directory. Failed writes are counted, never thrown: a full disk does
// not end a run.
class TensorBoardWriter {
 public:
  // Creates the directory and a new file. On a resume, give the step: TensorBoard then hides what an earlier file says
  // of later steps. Throws Error when the file cannot be created.
  explicit TensorBoardWriter(const std::filesystem::path& directory, int64_t resumed_at = 0);
  ~TensorBoardWriter();
  TensorBoardWriter(const TensorBoardWriter&) = delete;
  TensorBoardWriter& operator=(const TensorBoardWriter&) = delete;

  void scalar(std::string_view tag, int64_t step, double value);
  void text(std::string_view tag, int64_t step, std::string_view markdown);  // shown on the TEXT page
  void flush();
  const std::filesystem::path& file() const { return file_; }
  int64_t lost_flushes() const { return lost_flushes_; }

 private:
  void record(std::string_view event);

  std::filesystem::path file_;
  int fd_ = -1;
  std::string pending_;  // whole records
  int64_t lost_flushes_ = 0;
};

}  // namespace mixtape
