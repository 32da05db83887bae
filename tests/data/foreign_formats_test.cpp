#include "train/data/foreign_formats.h"

#include <cstring>

#include "tests/data/support.h"

namespace mixtape::test {
namespace {

using Documents = std::vector<std::vector<int32_t>>;

std::string from_hex(std::string_view hex) {
  std::string bytes, digits;
  for (const char c : hex) {
    if (c == ' ') continue;
    digits += c;
    if (digits.size() == 2) bytes += char(std::stoi(digits, nullptr, 16)), digits.clear();
  }
  return bytes;
}

template <class T>
std::string bytes_of(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

// Documents [[1,2,3],[4,5]] as 16-bit tokens, written by Megatron-LM's IndexedDatasetBuilder.
const std::string golden_bin = from_hex("01000200030004000500");
const std::string golden_idx = from_hex(
    "4d4d494449445800000100000000000000 08 0200000000000000 0300000000000000 03000000 02000000 0000000000000000 "
    "0600000000000000 0000000000000000 0100000000000000 0200000000000000");

TEST(Megatron, GoldenBytes) {
  const TemporaryDirectory directory;
  write_bytes(directory / "a.idx", golden_idx);
  write_bytes(directory / "a.bin", golden_bin);
  ASSERT_EQ(golden_idx.size(), 82u);
  for (const char* name : {"a.idx", "a.bin", "a", ""}) {
    const auto source = open_tokens(directory / name);
    EXPECT_EQ(documents_of(*source), (Documents{{1, 2, 3}, {4, 5}})) << name;
    EXPECT_EQ(source->info().format, TokenFormat::megatron);
  }
  // A closing token is no part of a document, where there is one.
  EXPECT_EQ(documents_of(*open_tokens(directory / "a.idx", {.eos_id = 5})), (Documents{{1, 2, 3}, {4}}));
}

TEST(Megatron, EveryChangedIndexByteIsFoundOrHarmless) {
  const TemporaryDirectory directory;
  write_bytes(directory / "a.bin", golden_bin);
  int refused = 0;
  for (size_t at = 0; at < golden_idx.size(); ++at) {
    for (int flip = 1; flip < 256; flip += 7) {
      std::string bytes = golden_idx;
      bytes[at] = char(bytes[at] ^ flip);
      write_bytes(directory / "a.idx", bytes);
      try {
        documents_of(*open_tokens(directory / "a.idx"));
      } catch (const DataError&) {
        ++refused;
      }
    }
  }
  EXPECT_GT(refused, 2900);  // of 82 x 37; what is left are other ways to cut the same tokens
}

TEST(Megatron, FilesOfTheWrongSize) {
  const TemporaryDirectory directory;
  write_bytes(directory / "a.bin", golden_bin);
  for (size_t size = 1; size < golden_idx.size(); ++size) {
    write_bytes(directory / "a.idx", golden_idx.substr(0, size));
    EXPECT_THROW(open_tokens(directory / "a.idx"), DataError) << size;
  }
  write_bytes(directory / "a.idx", golden_idx);
  for (const std::string& bin : {golden_bin.substr(0, 8), golden_bin + "xx", golden_bin + "x"}) {
    write_bytes(directory / "a.bin", bin);
    EXPECT_THROW(open_tokens(directory / "a.idx"), DataError) << bin.size();
  }
}

std::string llmc_header(int32_t magic, int32_t version, int32_t count) {
  std::vector<int32_t> header(256, 0);
  header[0] = magic, header[1] = version, header[2] = count;
  return bytes_of(header);
}

TEST(Llmc, BothMagics) {
  const TemporaryDirectory directory;
  write_bytes(directory / "a.bin", llmc_header(20240520, 1, 6) + bytes_of<uint16_t>({50256, 1, 2, 50256, 3, 4}));
  write_bytes(directory / "b.bin", llmc_header(20240801, 7, 4) + bytes_of<uint32_t>({128000, 7, 128000, 100000}));
  const auto a = open_tokens(directory / "a.bin", {.eos_id = 50256});
  EXPECT_EQ(documents_of(*a), (Documents{{1, 2}, {3, 4}}));
  EXPECT_EQ(a->num_tokens(), 6u);
  EXPECT_EQ(documents_of(*open_tokens(directory / "b.bin", {.eos_id = 128000})), (Documents{{7}, {100000}}));
  EXPECT_EQ(documents_of(*open_tokens(directory / "b.bin")).size(), 1u);
}

TEST(Llmc, DamagedHeaders) {
  const TemporaryDirectory directory;
  const std::string tokens = bytes_of<uint16_t>({1, 2});
  const std::vector<std::string> bad{llmc_header(20240520, 1, 3) + tokens,      llmc_header(20240520, 1, 1) + tokens,
                                     llmc_header(20240520, 1, -1) + tokens,     llmc_header(20240520, 2, 2) + tokens,
                                     llmc_header(20240801, 7, 2) + tokens,      llmc_header(20240520, 1, 0),
                                     llmc_header(20240520, 1, 2).substr(0, 100)};
  for (const std::string& bytes : bad) {
    write_bytes(directory / "a.bin", bytes);
    EXPECT_THROW(open_tokens(directory / "a.bin"), DataError);
  }
}

TEST(NanoGpt, BareTokensNeedTheirFormatNamed) {
  const TemporaryDirectory directory;
  write_bytes(directory / "train.bin", bytes_of<uint16_t>({1, 2, 9, 3, 9}));
  EXPECT_NE(error_of([&] { open_tokens(directory / "train.bin"); }).find("format: nanogpt"), std::string::npos);
  const OpenTokens options{.format = TokenFormat::nanogpt, .eos_id = 9};
  EXPECT_EQ(documents_of(*open_tokens(directory / "train.bin", options)), (Documents{{1, 2}, {3}}));
  write_bytes(directory / "train.bin", "odd");
  EXPECT_THROW(open_tokens(directory / "train.bin", options), DataError);
  write_bytes(directory / "train.bin", llmc_header(20240520, 1, 1) + "xx");
  EXPECT_NE(error_of([&] { open_tokens(directory / "train.bin", options); }).find("llm.c"), std::string::npos);
}

TEST(TokenSource, ErrorsSayWhatToDo) {
  const TemporaryDirectory directory;
  EXPECT_NE(error_of([&] { open_tokens(directory / "missing"); }).find("no such file"), std::string::npos);
  write_bytes(directory / "a.txt", "text");
  EXPECT_NE(error_of([&] { open_tokens(directory / "a.txt"); }).find("mixtape data prepare"), std::string::npos);
  EXPECT_THROW(parse_token_format("megatrn"), ConfigError);
}

}  // namespace
}  // namespace mixtape::test
