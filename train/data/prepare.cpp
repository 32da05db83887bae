#include "train/data/prepare.h"

#include <algorithm>
#include <memory>
#include <thread>

#include "core/base/error.h"
#include "train/data/manifest.h"
#include "train/data/ordered_pipeline.h"
#include "train/data/output_file.h"
#include "train/data/packed_source.h"
#include "train/data/shard.h"
#include "train/data/tokenizer/tokenizer.h"

namespace mixtape {
namespace {

namespace fs = std::filesystem;

constexpr size_t chunk_bytes = size_t(256) << 10;  // of text, at least: enough to make locks cheap

struct TextChunk {
  std::vector<TextPiece> pieces;
  uint64_t bytes_read = 0;
};

struct TokenChunk {
  struct Piece {
    uint64_t tokens, text_bytes;
    bool ends_document;
  };
  std::vector<int32_t> tokens;
  std::vector<Piece> pieces;
  uint64_t bytes_read = 0;
};

// A directory of shards that gets its manifest when all is written.
class ShardDirectory {
 public:
  ShardDirectory(fs::path path, const Tokenizer& tokenizer, const PrepareOptions& options)
      : path_(std::move(path)), tokenizer_(tokenizer), options_(options) {
    fs::create_directories(path_);
    remove_leftovers();
  }

  void append(std::span<const int32_t> tokens) {
    if (!shard_) {
      name_ = fmt::format("{:05}{}", manifest_.files.size(), shard_extension);
      shard_ = std::make_unique<ShardWriter>(path_ / name_, tokenizer_.fingerprint(), tokenizer_.vocab_size(),
                                             options_.append_eos ? *tokenizer_.eos_id() : -1);
    }
    shard_->append(tokens);
    document_tokens_ += tokens.size();
  }

  uint64_t end_document(uint64_t text_bytes) {
    if (options_.append_eos) append(std::span(eos_));
    shard_->end_document(text_bytes);
    if (shard_->num_tokens() >= options_.shard_tokens) close_shard();
    return std::exchange(document_tokens_, 0);
  }

  uint64_t finish() {
    if (shard_) close_shard();
    manifest_.tokenizer = tokenizer_.save(path_).filename().string();
    manifest_.tokenizer_description = tokenizer_.description();
    write_manifest(path_, manifest_);
    return manifest_.files.size();
  }

 private:
  // The manifest first: whatever happens next, the directory does not look complete.
  void remove_leftovers() {
    if (fs::exists(path_ / manifest_name) && !options_.overwrite)
      throw DataError("{}: holds prepared data already; choose another --output, or replace it with --overwrite",
                      path_.string());
    fs::remove(path_ / manifest_name);
    std::vector<fs::path> old;
    for (const auto& entry : fs::directory_iterator(path_))
      if (entry.path().extension() == shard_extension || entry.path().extension() == partial_extension)
        old.push_back(entry.path());
    for (const fs::path& file : old) fs::remove(file);
  }

  void close_shard() {
    manifest_.files.push_back({name_, shard_->finish()});
    shard_.reset();
  }

  fs::path path_;
  const Tokenizer& tokenizer_;
  const PrepareOptions& options_;
  std::vector<int32_t> eos_{tokenizer_.eos_id().value_or(-1)};
  Manifest manifest_;
  std::unique_ptr<ShardWriter> shard_;
  std::string name_;
  uint64_t document_tokens_ = 0;
};

// Takes pieces in order and sends each document to its split.
class DocumentWriter {
 public:
  DocumentWriter(const Tokenizer& tokenizer, const PrepareOptions& options) : options_(options) {
    const bool split = options.validation_split > 0;
    training_.emplace(split ? options.output / "train" : options.output, tokenizer, options);
    if (split) validation_.emplace(options.output / "validation", tokenizer, options);
  }

  void write(std::span<const int32_t> tokens, const TokenChunk::Piece& piece) {
    ShardDirectory& directory = is_validation() ? *validation_ : *training_;
    directory.append(tokens);
    text_bytes_ += piece.text_bytes;
    totals_.text_bytes += piece.text_bytes;
    if (!piece.ends_document) return;
    totals_.tokens += directory.end_document(std::exchange(text_bytes_, 0));
    validation_documents_ += is_validation();
    ++totals_.documents;
  }

  uint64_t finish() {
    if (totals_.documents == 0) throw DataError("the input holds no documents with text");
    if (validation_ && (validation_documents_ == 0 || validation_documents_ == totals_.documents))
      throw DataError(
          "--validation-split {} takes {} of {} documents; choose another share, or cut the text into more "
          "documents (--separator)",
          options_.validation_split, validation_documents_, totals_.documents);
    const uint64_t shards = validation_ ? validation_->finish() : 0;
    return shards + training_->finish();
  }

  PrepareProgress& totals() { return totals_; }
  uint64_t validation_documents() const { return validation_documents_; }

 private:
  bool is_validation() const {
    return validation_ && ValidationRule::is_validation(totals_.documents, options_.validation_split);
  }

  const PrepareOptions& options_;
  std::optional<ShardDirectory> training_, validation_;
  PrepareProgress totals_;
  uint64_t text_bytes_ = 0, validation_documents_ = 0;
};

std::optional<TextChunk> read_chunk(TextReader& reader) {
  TextChunk chunk;
  size_t bytes = 0;
  for (TextPiece piece; bytes < chunk_bytes && reader.next(piece);) {
    bytes += piece.text.size() + sizeof piece;
    chunk.pieces.push_back(std::move(piece));
  }
  if (chunk.pieces.empty()) return std::nullopt;
  chunk.bytes_read = reader.counters().bytes_read;
  return chunk;
}

TokenChunk tokenize(const Tokenizer& tokenizer, TextChunk&& chunk) {
  TokenChunk out{.bytes_read = chunk.bytes_read};
  for (const TextPiece& piece : chunk.pieces) {
    const size_t before = out.tokens.size();
    tokenizer.encode(piece.text, out.tokens, {.parse_special = false, .add_special = false});
    out.pieces.push_back({out.tokens.size() - before, piece.text.size(), piece.ends_document});
  }
  return out;
}

void check(const Tokenizer& tokenizer, const PrepareOptions& options) {
  if (options.append_eos && !tokenizer.eos_id())
    throw DataError("the tokenizer ({}) has no end-of-sequence token to close documents with; use --no-append-eos",
                    tokenizer.description());
  if (!(options.validation_split >= 0 && options.validation_split < 1))
    throw ConfigError("--validation-split is {}, expected a share from 0 up to, not including, 1",
                      options.validation_split);
}

}  // namespace

PrepareResult prepare(const Tokenizer& tokenizer, const PrepareOptions& options,
                      const std::function<void(const PrepareProgress&)>& progress) {
  check(tokenizer, options);
  const std::vector<fs::path> files = expand_paths(options.inputs);
  const int workers = options.workers > 0 ? options.workers : int(std::max(1u, std::thread::hardware_concurrency()));

  PrepareResult result;
  TextReader reader(files, options.text);
  DocumentWriter writer(tokenizer, options);
  for (const fs::path& file : files) writer.totals().bytes_total += fs::file_size(file);

  OrderedPipeline<TextChunk, TokenChunk> pipeline(workers, 4 * workers);
  result.most_in_flight = pipeline.run([&] { return read_chunk(reader); },
                                       [&](TextChunk&& chunk) { return tokenize(tokenizer, std::move(chunk)); },
                                       [&](TokenChunk&& chunk) {
                                         std::span<const int32_t> rest = chunk.tokens;
                                         for (const TokenChunk::Piece& piece : chunk.pieces) {
                                           writer.write(rest.first(piece.tokens), piece);
                                           rest = rest.subspan(piece.tokens);
                                         }
                                         writer.totals().bytes_read = chunk.bytes_read;
                                         if (progress) progress(writer.totals());
                                       });
  result.shards = writer.finish();
  result.totals = writer.totals();
  result.text = reader.counters();
  result.validation_documents = writer.validation_documents();
  return result;
}

}  // namespace mixtape
