#include "train/data/text_reader.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <string_view>

#include "core/base/error.h"
#include "core/base/utf8.h"
#include "train/data/byte_stream.h"
#include "train/data/paths.h"

namespace mixtape {
namespace {

namespace fs = std::filesystem;

bool is_blank(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }

// Where to cut a long text: at most `limit` bytes, at a single blank between two words, as near the end as there is one
// in the second half. A line break stays with the text before it and a space goes with the word behind, which is where
// byte-level BPE splits anyway.
size_t cut_point(std::string_view text, size_t limit) {
  for (size_t at = limit; at-- > limit / 2 + 1;) {
    if (text[at] != ' ' && text[at] != '\n') continue;
    if (is_blank(text[at - 1]) || at + 1 >= text.size() || is_blank(text[at + 1])) continue;
    const size_t cut = text[at] == ' ' ? at : at + 1;
    if (cut <= limit) return cut;
  }
  // One endless word: at least not within a character.
  size_t at = limit;
  while (at > limit - 3 && at < text.size() && (uint8_t(text[at]) & 0xC0) == 0x80) --at;
  return at;
}

// Lines of a stream in parts of bounded size: a line longer than the buffer comes in several.
class LineParts {
 public:
  explicit LineParts(const fs::path& path) : stream_(ByteStream::open(path)), buffer_(size_t(64) << 10) {}

  struct Part {
    std::string_view text;  // with its line break
    bool starts_line, ends_line;
  };

  bool next(Part& part) {
    const char* end = nullptr;
    while (!(end = static_cast<const char*>(std::memchr(buffer_.data() + begin_, '\n', end_ - begin_)))) {
      if (begin_ > 0) {
        std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
        end_ -= begin_;
        begin_ = 0;
      }
      if (end_ == buffer_.size()) break;
      const size_t count = stream_->read(std::span(buffer_).subspan(end_));
      if (count == 0) break;
      end_ += count;
    }
    if (begin_ == end_) return false;
    const char* first = buffer_.data() + begin_;
    const size_t length = end ? size_t(end + 1 - first) : end_ - begin_;
    part = {{first, length}, starts_line_, end != nullptr};
    line_ += starts_line_;
    starts_line_ = part.ends_line;
    begin_ += length;
    return true;
  }

  uint64_t line() const { return line_; }  // of the last part, from 1
  uint64_t position() const { return stream_->position(); }

 private:
  std::unique_ptr<ByteStream> stream_;
  std::vector<char> buffer_;
  size_t begin_ = 0, end_ = 0;
  bool starts_line_ = true;
  uint64_t line_ = 0;
};

std::string_view without_line_break(std::string_view line) {
  if (line.ends_with('\n')) line.remove_suffix(1);
  if (line.ends_with('\r')) line.remove_suffix(1);
  return line;
}

}  // namespace

class TextReader::Impl {
 public:
  Impl(std::vector<fs::path> files, TextOptions options) : files_(std::move(files)), options_(std::move(options)) {
    // Room for cut_point to find a character's first byte.
    options_.max_piece_bytes = std::max<size_t>(options_.max_piece_bytes, 16);
  }

  bool next(TextPiece& piece) {
    for (;;) {
      if (take_piece(piece)) return true;
      if (!lines_) {
        if (next_file_ == files_.size()) return false;
        open(files_[next_file_++]);
      }
      jsonl_ ? read_json_line() : read_text();
      counters_.bytes_read = bytes_before_ + (lines_ ? lines_->position() : 0);
    }
  }

  const TextCounters& counters() const { return counters_; }

 private:
  void open(const fs::path& path) {
    path_ = path.string();
    lines_ = std::make_unique<LineParts>(path);
    jsonl_ = is_json_lines(path);
    first_part_ = true;
    document_line_ = 1;
  }

  void close() {
    bytes_before_ += lines_->position();
    lines_.reset();
  }

  bool next_part(LineParts::Part& part) {
    if (!lines_->next(part)) return false;
    if (first_part_) {
      if (part.text.starts_with("\xEF\xBB\xBF")) part.text.remove_prefix(3);
      if (part.text.starts_with("\xFF\xFE") || part.text.starts_with("\xFE\xFF"))
        throw DataError("{}: the text is UTF-16; convert it to UTF-8 first (iconv -f UTF-16 -t UTF-8)", path_);
      first_part_ = false;
    }
    return true;
  }

  // Hands out what is pending: a whole piece of a long document, or the rest of an ended one.
  bool take_piece(TextPiece& piece) {
    while (pending_.size() - taken_ > options_.max_piece_bytes || ended_) {
      const std::string_view rest = std::string_view(pending_).substr(taken_);
      const bool last = rest.size() <= options_.max_piece_bytes;
      const size_t length = last ? rest.size() : cut_point(rest, options_.max_piece_bytes);
      piece.text.assign(rest.substr(0, length));
      piece.ends_document = last;
      taken_ += length;
      // Moving the rest to the front once per piece would be quadratic in a long JSON string.
      if (taken_ > pending_.size() / 2) {
        pending_.erase(0, taken_);
        taken_ = 0;
      }
      const bool empty_document = last && piece.text.empty() && !in_document_;
      if (last) ended_ = false;
      in_document_ = !last;
      if (empty_document) continue;
      if (last) ++counters_.documents;
      repair(piece.text);
      return true;
    }
    return false;
  }

  void repair(std::string& text) {
    if (is_utf8(text)) return;
    if (options_.invalid_utf8 == InvalidUtf8::error)
      throw DataError(
          "{}: the document at line {} is not valid UTF-8; convert the file, or let broken characters be "
          "replaced (--invalid-utf8 replace)",
          path_, document_line_);
    text = to_valid_utf8(text);
    ++counters_.repaired;
  }

  void read_text() {
    LineParts::Part part;
    if (!next_part(part)) {
      if (options_.separator && pending_.ends_with('\n')) pending_.pop_back();
      ended_ = true;
      return close();
    }
    const bool whole_line = part.starts_line && part.ends_line;
    if (options_.separator && whole_line && without_line_break(part.text) == *options_.separator) {
      // The line break before a separator belongs to the separator.
      if (pending_.ends_with('\n')) pending_.pop_back();
      if (pending_.ends_with('\r')) pending_.pop_back();
      ended_ = true;
      return;
    }
    if (pending_.empty() && !in_document_) document_line_ = lines_->line();
    pending_ += part.text;
  }

  void read_json_line() {
    std::string line;
    bool too_long = false;
    for (LineParts::Part part;;) {
      if (!next_part(part)) {
        if (line.empty() && !too_long) return close();
        break;
      }
      if (line.size() + part.text.size() > options_.max_line_bytes) too_long = true;
      if (!too_long) line += part.text;
      if (part.ends_line) break;
    }
    document_line_ = lines_->line();
    if (too_long) return bad_line(fmt::format("longer than {} bytes", options_.max_line_bytes));
    if (std::all_of(line.begin(), line.end(), is_blank)) return;
    repair(line);
    parse_json(line);
  }

  void parse_json(const std::string& line) {
    nlohmann::json json;
    try {
      json = nlohmann::json::parse(line);
    } catch (const nlohmann::json::exception& error) {
      return bad_line(fmt::format("not JSON: {}", error.what()));
    }
    if (!json.is_object()) return bad_line("not a JSON object");
    const auto text = json.find(options_.key);
    if (text == json.end()) return bad_line(fmt::format("no key \"{}\"", options_.key));
    if (!text->is_string()) return bad_line(fmt::format("\"{}\" is not a string", options_.key));
    pending_ = std::move(text->get_ref<std::string&>());
    taken_ = 0;
    ended_ = true;
  }

  void bad_line(const std::string& reason) {
    const std::string message = fmt::format("{}:{}: {}", path_, document_line_, reason);
    if (options_.bad_line == BadLine::error)
      throw DataError("{}; correct the line, choose the key with --key, or skip such lines with --skip-bad-lines",
                      message);
    if (counters_.skipped_lines++ == 0) counters_.first_skipped = message;
  }

  std::vector<fs::path> files_;
  TextOptions options_;
  TextCounters counters_;
  size_t next_file_ = 0;
  uint64_t bytes_before_ = 0;  // of files that are closed

  std::string path_;
  std::unique_ptr<LineParts> lines_;
  bool jsonl_ = false, first_part_ = true;
  uint64_t document_line_ = 1;

  std::string pending_;  // of the current document, from taken_ on not handed out yet
  size_t taken_ = 0;
  bool ended_ = false;        // pending_ is the end of its document
  bool in_document_ = false;  // pieces of it were handed out
};

TextReader::TextReader(std::vector<fs::path> files, TextOptions options)
    : impl_(std::make_unique<Impl>(std::move(files), std::move(options))) {}
TextReader::~TextReader() = default;
bool TextReader::next(TextPiece& piece) { return impl_->next(piece); }
const TextCounters& TextReader::counters() const { return impl_->counters(); }

}  // namespace mixtape
