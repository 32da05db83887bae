#include "train/data/shard.h"

#include <xxhash.h>

#include <cstring>

#include "tests/data/support.h"
#include "train/data/manifest.h"

namespace mixtape::test {
namespace {

using ShardDocuments = std::vector<std::vector<int32_t>>;

ShardInfo write_shard(const fs::path& path, const ShardDocuments& documents, int32_t vocab_size, int32_t eos_id) {
  ShardWriter writer(path, 0x1234, vocab_size, eos_id);
  for (const auto& document : documents) {
    writer.append(document);
    if (eos_id >= 0) writer.append(std::vector<int32_t>{eos_id});
    writer.end_document(document.size());
  }
  return writer.finish();
}

std::string little_endian(uint64_t value, int bytes) {
  std::string out;
  for (int i = 0; i < bytes; ++i) out += char(value >> (8 * i));
  return out;
}

TEST(Shard, WhatIsWrittenIsRead) {
  const TemporaryDirectory directory;
  const ShardDocuments documents{{5, 6, 7}, {}, {8}, std::vector<int32_t>(1 << 20, 9)};
  for (const int32_t vocab_size : {10, 65536, 65537, 200000}) {
    for (const int32_t eos_id : {-1, 3}) {
      const fs::path path = directory / "a.tokens";
      const ShardInfo info = write_shard(path, documents, vocab_size, eos_id);
      EXPECT_EQ(info.num_documents, 4u);
      const auto source = open_tokens(path);
      EXPECT_EQ(documents_of(*source), documents);
      EXPECT_EQ(source->info().token_bytes, vocab_size <= 65536 ? 2 : 4);
      EXPECT_EQ(source->info().fingerprint, 0x1234u);
      EXPECT_EQ(source->info().text_bytes, 4u + (1 << 20));
      source->verify();
    }
  }
}

// docs/data.md promises these bytes.
TEST(Shard, LayoutByteByByte) {
  const TemporaryDirectory directory;
  write_shard(directory / "a.tokens", {{1, 2}, {258}}, 300, 0);
  const std::string bytes = read_bytes(directory / "a.tokens");
  std::string payload;
  for (const int token : {1, 2, 0, 258, 0}) payload += little_endian(uint64_t(token), 2);
  payload += std::string(6, '\0');
  for (const int offset : {0, 3, 5}) payload += little_endian(uint64_t(offset), 8);
  std::string header = "MIXTOKEN" + little_endian(1, 4) + little_endian(2, 4) + little_endian(5, 8) +
                       little_endian(2, 8) + little_endian(3, 8) + little_endian(0x1234, 8) + little_endian(300, 4) +
                       little_endian(0, 4) + little_endian(XXH3_64bits(payload.data(), payload.size()), 8) +
                       std::string(56, '\0');
  header += little_endian(XXH3_64bits(header.data(), header.size()), 8);
  EXPECT_EQ(bytes, header + payload);
}

TEST(Shard, UnfinishedLeavesNothing) {
  const TemporaryDirectory directory;
  {
    ShardWriter writer(directory / "a.tokens", 1, 10, -1);
    writer.append(std::vector<int32_t>{1, 2});
    EXPECT_FALSE(fs::exists(directory / "a.tokens"));
    EXPECT_TRUE(fs::exists(directory / "a.tokens.partial"));
  }
  EXPECT_TRUE(fs::is_empty(directory.path()));
}

TEST(Shard, WriterRefusesWhatNoReaderCouldTrust) {
  const TemporaryDirectory directory;
  ShardWriter writer(directory / "a.tokens", 1, 10, 0);
  EXPECT_THROW(writer.append(std::vector<int32_t>{10}), DataError);
  EXPECT_THROW(writer.append(std::vector<int32_t>{-1}), DataError);
  EXPECT_THROW(writer.end_document(0), DataError);
  writer.append(std::vector<int32_t>{4});
  EXPECT_THROW(writer.end_document(1), DataError);
  EXPECT_THROW(writer.finish(), DataError);
}

// Every header with any byte changed is refused, also with its checksum made right again: either it fails a check, or
// the field means nothing for safety (then all documents must still be readable).
TEST(Shard, EveryChangedHeaderByteIsFoundOrHarmless) {
  const TemporaryDirectory directory;
  write_shard(directory / "a.tokens", {{1, 2}, {3}, {4, 5, 6}}, 300, 0);
  const std::string good = read_bytes(directory / "a.tokens");
  for (size_t at = 0; at < shard_header_bytes; ++at) {
    for (const int flip : {1, 0x80, 0xFF}) {
      std::string bytes = good;
      bytes[at] = char(bytes[at] ^ flip);
      write_bytes(directory / "b.tokens", bytes);
      EXPECT_THROW(open_shard(directory / "b.tokens"), DataError) << at;
      if (at >= 120) continue;
      const uint64_t checksum = XXH3_64bits(bytes.data(), 120);
      std::memcpy(bytes.data() + 120, &checksum, 8);
      write_bytes(directory / "b.tokens", bytes);
      try {
        documents_of(*open_shard(directory / "b.tokens"));
        EXPECT_GE(at, 32u) << "a count was believed";
      } catch (const DataError&) {
      }
    }
  }
}

TEST(Shard, TruncatedLongerAndFlippedFilesAreFound) {
  const TemporaryDirectory directory;
  write_shard(directory / "a.tokens", {{1, 2}, {3}}, 300, 0);
  const std::string good = read_bytes(directory / "a.tokens");
  for (size_t size = 0; size < good.size(); ++size) {
    write_bytes(directory / "b.tokens", good.substr(0, size));
    EXPECT_THROW(open_shard(directory / "b.tokens"), DataError) << size;
  }
  write_bytes(directory / "b.tokens", good + '\0');
  EXPECT_THROW(open_shard(directory / "b.tokens"), DataError);
  for (size_t at = shard_header_bytes; at < good.size(); ++at) {
    std::string bytes = good;
    bytes[at] = char(bytes[at] ^ 1);
    write_bytes(directory / "b.tokens", bytes);
    EXPECT_THROW(open_shard(directory / "b.tokens")->verify(), DataError) << at;
  }
}

TEST(Shard, ReadsBeyondTheEndAreErrors) {
  const TemporaryDirectory directory;
  write_shard(directory / "a.tokens", {{1, 2}}, 300, 0);
  const auto source = open_shard(directory / "a.tokens");
  std::vector<int32_t> out(2);
  EXPECT_THROW(source->read(2, out), DataError);
  EXPECT_THROW(source->read(UINT64_MAX, out), DataError);
  EXPECT_THROW(source->document(1), DataError);
}

TEST(Manifest, DirectoryOfShardsIsOneSource) {
  const TemporaryDirectory directory;
  Manifest manifest{.tokenizer = "tokenizer.json", .tokenizer_description = "a test"};
  manifest.files.push_back({"00000.tokens", write_shard(directory / "00000.tokens", {{1, 2}, {3}}, 300, 0)});
  EXPECT_NE(error_of([&] { open_tokens(directory.path()); }).find("interrupted"), std::string::npos);
  manifest.files.push_back({"00001.tokens", write_shard(directory / "00001.tokens", {{4}, {5, 6}}, 300, 0)});
  write_manifest(directory.path(), manifest);

  const auto source = open_tokens(directory.path());
  EXPECT_EQ(documents_of(*source), (ShardDocuments{{1, 2}, {3}, {4}, {5, 6}}));
  std::vector<int32_t> across(5);
  source->read(3, across);
  EXPECT_EQ(across, (std::vector<int32_t>{3, 0, 4, 0, 5}));
  EXPECT_EQ(read_manifest(directory.path()).total().num_tokens, source->num_tokens());

  write_shard(directory / "00001.tokens", {{4}, {5, 7}}, 300, 0);
  EXPECT_NE(error_of([&] { open_tokens(directory.path()); }).find("00001.tokens"), std::string::npos);
}

TEST(Manifest, HostileOnesAreRefused) {
  const TemporaryDirectory directory;
  const ShardInfo info = write_shard(directory / "a.tokens", {{1}}, 300, 0);
  write_manifest(directory.path(), {.tokenizer = "t", .files = {{"../a.tokens", info}}});
  EXPECT_NE(error_of([&] { read_manifest(directory.path()); }).find("manifest.json"), std::string::npos);
  for (const char* text : {"", "{", "[]", "{}", "{\"format\":1}", "{\"format\":\"mixtape-tokens\",\"version\":2}"}) {
    write_bytes(directory / manifest_name, text);
    EXPECT_EQ(error_of([&] { read_manifest(directory.path()); }).find("json.exception"), std::string::npos) << text;
  }
}

}  // namespace
}  // namespace mixtape::test
