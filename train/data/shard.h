// Mixtape's own token file, a shard: a header, tokens, and the index of documents. docs/data.md gives it byte by byte.
//
//   0    8  magic "MIXTOKEN"
//   8    4  version, 1
//   12   4  bytes of a token: 2 where the vocabulary fits (<= 65536), else 4
//   16   8  number of tokens
//   24   8  number of documents
//   32   8  bytes of text that the tokens stand for
//   40   8  fingerprint of the tokenizer
//   48   4  size of the vocabulary
//   52   4  id of the end-of-sequence token that closes each document, or -1 if none does
//   56   8  xxh3 of everything behind the header
//   64   56 zero
//   120  8  xxh3 of the 120 bytes before
//   128     tokens, then zeros up to a multiple of 8, then documents + 1 offsets (u64, in tokens; first 0, last =
//   tokens)
//
// All little-endian. The size of the file follows from the header, and any other size is refused.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "train/data/token_source.h"

namespace mixtape {

inline constexpr char shard_extension[] = ".tokens";
inline constexpr size_t shard_header_bytes = 128;
inline constexpr uint32_t shard_version = 1;

struct ShardInfo {
  uint64_t num_tokens = 0;
  uint64_t num_documents = 0;
  uint64_t text_bytes = 0;
  uint64_t fingerprint = 0;
  int32_t vocab_size = 0;
  int32_t eos_id = -1;
  uint64_t checksum = 0;

  int token_bytes() const { return vocab_size <= 65536 ? 2 : 4; }
};

// Writes one shard in a stream: into PATH.partial, whose header stays zero until finish() has written the rest and
// synced it; then the file is renamed. A crash or a full disk leaves at most the .partial file, which no reader opens;
// the destructor removes it. Throws DataError.
class ShardWriter {
 public:
  ShardWriter(std::filesystem::path path, uint64_t tokenizer_fingerprint, int32_t vocab_size, int32_t eos_id);
  ~ShardWriter();
  ShardWriter(const ShardWriter&) = delete;
  ShardWriter& operator=(const ShardWriter&) = delete;

  // Appends tokens to the open document; each id in [0, vocab_size). Adds no end-of-sequence token.
  void append(std::span<const int32_t> tokens);
  // Closes the open document (also an empty one). If the shard has an eos_id, its last token must be that.
  void end_document(uint64_t text_bytes);

  uint64_t num_tokens() const { return info_.num_tokens; }
  uint64_t num_documents() const { return info_.num_documents; }
  ShardInfo finish();

 private:
  struct Output;
  void flush();

  ShardInfo info_;
  std::unique_ptr<Output> output_;
  std::vector<unsigned char> buffer_;
  std::vector<uint64_t> offsets_{0};
  int32_t last_token_ = -1;
};

// Maps a shard and checks header and index; verify() compares the checksum of the payload.
std::shared_ptr<const TokenSource> open_shard(const std::filesystem::path& path);

// The header of a shard alone, checked against the size of the file.
ShardInfo read_shard_info(const std::filesystem::path& path);

}  // namespace mixtape
