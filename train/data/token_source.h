// Tokenised text on disk, whatever its format: a stream of tokens cut into documents.
//
//   auto tokens = open_tokens("data/fortunes", {.eos_id = 0});
//   DocumentSpan d = tokens->document(7);
//   std::vector<int32_t> ids(d.length);
//   tokens->read(d.first, ids);
//
// Formats: Mixtape's shards (train/data/shard.h, docs/data.md), llm.c's and nanoGPT's .bin, Megatron's .idx/.bin. Files
// are mapped, not read; opening checks every field against the size of the file, so a damaged or hostile file is a
// DataError and never a stray read. A source is immutable and safe to use from many threads.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace mixtape {

// `autodetect` knows directories with a manifest, shards and llm.c files by their magic, and Megatron by its pair of
// .idx and .bin. nanoGPT's files are bare 16-bit tokens without a header, so they must be named as such.
enum class TokenFormat { autodetect, mixtape, llmc, nanogpt, megatron };

TokenFormat parse_token_format(std::string_view name);  // throws ConfigError that lists the names
std::string_view name_of(TokenFormat format);

// Where a document lies in the stream. A closing end-of-sequence token, if the file has one, is not part of it: who
// packs documents adds exactly one, so that all formats look alike.
struct DocumentSpan {
  uint64_t first = 0;
  uint64_t length = 0;
};

// What a file says about itself; fields that its format lacks stay empty.
struct TokenSourceInfo {
  TokenFormat format = TokenFormat::autodetect;
  std::string path;
  int token_bytes = 0;                  // width of a token on disk
  std::optional<uint64_t> fingerprint;  // of the tokenizer that wrote it
  std::optional<int32_t> vocab_size;
  std::optional<int32_t> eos_id;       // that closes each document
  std::optional<uint64_t> text_bytes;  // bytes of text before tokenization
};

class TokenSource {
 public:
  virtual ~TokenSource() = default;

  virtual const TokenSourceInfo& info() const = 0;
  virtual uint64_t num_tokens() const = 0;  // of the stream, delimiters included
  virtual uint64_t num_documents() const = 0;
  virtual DocumentSpan document(uint64_t index) const = 0;  // index < num_documents()

  // Tokens [first, first + out.size()) of the stream, as they stand in the file: an id may exceed the vocabulary, and
  // what does not fit in int32 reads as -1. Throws DataError beyond num_tokens().
  virtual void read(uint64_t first, std::span<int32_t> out) const = 0;

  // Compares the checksum, where the format has one; throws DataError when it differs. Reads the whole file.
  virtual void verify() const {}
};

struct OpenTokens {
  TokenFormat format = TokenFormat::autodetect;
  // Delimiter of documents in llm.c's (first token of each) and nanoGPT's (last token of each) files, and the closing
  // token to leave out of Megatron's documents. Without it, such a file is one document.
  std::optional<int32_t> eos_id = std::nullopt;
};

// Opens a file or a directory. A directory holds a manifest.json, or else token files of one format, taken in the order
// of their names. Throws DataError.
std::shared_ptr<const TokenSource> open_tokens(const std::filesystem::path& path, const OpenTokens& options = {});

// Several sources one after the other.
std::shared_ptr<const TokenSource> concatenate(std::vector<std::shared_ptr<const TokenSource>> parts, std::string path);

}  // namespace mixtape
