#include "train/report/tensorboard.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "tests/report/temporary.h"

namespace mixtape {
namespace {

using namespace std::string_literals;

// RFC 3720, B.4, and the check value of the CRC catalogue.
TEST(Crc32c, PublishedValues) {
  EXPECT_EQ(crc32c(""), 0u);
  EXPECT_EQ(crc32c("123456789"), 0xE3069283u);
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8A9136AAu);
  EXPECT_EQ(crc32c(std::string(32, '\xff')), 0x62A8AB43u);
}

TEST(Crc32c, MaskedIsRotatedAndOffset) {
  const uint32_t crc = 0xE3069283u;
  EXPECT_EQ(masked_crc32c("123456789"), ((crc >> 15) | (crc << 17)) + 0xA282EAD8u);
}

uint64_t little_endian(const std::string& bytes, size_t at, int size) {
  uint64_t value = 0;
  for (int i = 0; i < size; ++i) value |= uint64_t(uint8_t(bytes.at(at + size_t(i)))) << (8 * i);
  return value;
}

// Splits a file into its records, checking both sums of each.
std::vector<std::string> records(const std::filesystem::path& file) {
  const std::string bytes = read(file);
  std::vector<std::string> events;
  for (size_t at = 0; at < bytes.size();) {
    const size_t length = little_endian(bytes, at, 8);
    EXPECT_EQ(little_endian(bytes, at + 8, 4), masked_crc32c(bytes.substr(at, 8)));
    events.push_back(bytes.substr(at + 12, length));
    EXPECT_EQ(little_endian(bytes, at + 12 + length, 4), masked_crc32c(events.back()));
    at += 16 + length;
  }
  return events;
}

// An event without its time, which are the key 0x09 and 8 bytes.
std::string untimed(const std::string& event) {
  EXPECT_EQ(event.at(0), '\x09');
  return event.substr(9);
}

TEST(TensorBoard, RecordsAreTheProtocolBuffersOfEventProto) {
  const TemporaryFolder folder;
  TensorBoardWriter writer(folder / "tensorboard");
  writer.scalar("loss", 300, 0.5);
  writer.flush();
  const auto events = records(writer.file());
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(untimed(events[0]),
            "\x1a\x0d"
            "brain.Event:2");
  // step (2) = 300 as a varint; summary (5) of one value (1): tag (1) = "loss", simple_value (2) = 0.5f.
  EXPECT_EQ(untimed(events[1]), "\x10\xac\x02\x2a\x0d\x0a\x0b\x0a\x04loss\x15\x00\x00\x00\x3f"s);
}

TEST(TensorBoard, TextIsAStringTensorOfTheTextPlugin) {
  const TemporaryFolder folder;
  TensorBoardWriter writer(folder.path());
  writer.text("s", 1, "hi");
  writer.flush();
  EXPECT_EQ(untimed(records(writer.file()).at(1)),
            "\x10\x01\x2a\x1b\x0a\x19\x0a\x01s\x42\x08\x08\x07\x12\x00\x42\x02hi\x4a\x0a\x0a\x06\x0a\x04text\x20\x02"s);
}

TEST(TensorBoard, AResumeSupersedesLaterSteps) {
  const TemporaryFolder folder;
  TensorBoardWriter writer(folder.path(), 7);
  // step (2) = 8; session_log (7) with status (1) = START (1).
  EXPECT_EQ(untimed(records(writer.file()).at(1)), "\x10\x08\x3a\x02\x08\x01"s);
}

}  // namespace
}  // namespace mixtape
