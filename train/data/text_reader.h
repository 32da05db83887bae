// Documents out of text files, in a stream: memory stays flat whatever the size of the input.
//
//   TextReader reader(expand_paths({"corpus/", "more/*.jsonl.gz"}), {.key = "text"});
//   for (TextPiece piece; reader.next(piece);) ...
//
// .jsonl and .ndjson (one object a line, the document under a key) and plain text (a file is one document, or is cut at
// separator lines or at blank lines), each also compressed with gzip or zstd, which is recognised by content.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace mixtape {

enum class InvalidUtf8 { replace, error };
enum class BadLine { error, skip };

struct TextOptions {
  std::string key = "text";                             // of JSONL objects
  std::optional<std::string> separator = std::nullopt;  // line that ends a document of plain text; "" = blank lines
  InvalidUtf8 invalid_utf8 = InvalidUtf8::replace;      // by U+FFFD, one for each maximal broken part, and counted
  BadLine bad_line = BadLine::error;                    // JSONL: a line that is no object with the key
  size_t max_line_bytes = size_t(64) << 20;             // longer JSONL lines are bad lines
  size_t max_piece_bytes = size_t(1) << 20;             // longer documents come in pieces
};

// A document, or a piece of a long one: pieces end at a blank between two words where there is one, so that tokenizing
// them one by one gives what tokenizing the whole gives for tokenizers that split at blanks.
struct TextPiece {
  std::string text;
  bool ends_document = true;
};

struct TextCounters {
  uint64_t bytes_read = 0;  // of the files as they are on disk: for progress
  uint64_t documents = 0;
  uint64_t repaired = 0;  // pieces of text (JSONL: lines) with broken UTF-8
  uint64_t skipped_lines = 0;
  std::string first_skipped;  // why the first line was skipped, with file and line
};

class TextReader {
 public:
  TextReader(std::vector<std::filesystem::path> files, TextOptions options);
  ~TextReader();

  // The next piece; false at the end. Empty documents are left out. Throws DataError with file and line.
  bool next(TextPiece& piece);
  const TextCounters& counters() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

// Files for paths, directories (all text files below, by their extension, sorted) and patterns with * and ?. Throws
// DataError for one that gives no file.
std::vector<std::filesystem::path> expand_paths(const std::vector<std::string>& paths);

}  // namespace mixtape
