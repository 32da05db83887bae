#include "train/data/tokenizer/tokenizer.h"

#include "core/base/error.h"
#include "core/base/utf8.h"
#include "train/data/mapped_file.h"
#include "train/data/tokenizer/bpe_tokenizer.h"
#include "train/data/tokenizer/sentencepiece_tokenizer.h"
#include "train/data/tokenizer/tokenizer_json.h"

namespace mixtape {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t largest_file = uint64_t{256} << 20;  // the largest published one has 35 MiB

class TextFile {
 public:
  explicit TextFile(const fs::path& path) : file_(path) {
    if (file_.size() > largest_file)
      throw DataError("{}: {} MiB is too large for a tokenizer, expected at most {} MiB", path.string(),
                      file_.size() >> 20, largest_file >> 20);
  }
  std::string_view text() const { return {reinterpret_cast<const char*>(file_.data()), file_.size()}; }

 private:
  MappedFile file_;
};

std::unique_ptr<Tokenizer> finish_bpe(BpeDefinition definition, const fs::path& file) {
  const fs::path config = file.parent_path() / "tokenizer_config.json";
  if (fs::exists(config)) read_tokenizer_config(TextFile(config).text(), config.string(), definition);
  return std::make_unique<BpeTokenizer>(std::move(definition), file.string());
}

std::unique_ptr<Tokenizer> load_json(const fs::path& file) {
  return finish_bpe(read_tokenizer_json(TextFile(file).text(), file.string()), file);
}

std::unique_ptr<Tokenizer> load_pair(const fs::path& directory) {
  const fs::path vocab = directory / "vocab.json", merges = directory / "merges.txt";
  const TextFile vocab_file(vocab), merges_file(merges);
  return finish_bpe(read_vocab_and_merges({vocab_file.text(), vocab.string()}, {merges_file.text(), merges.string()}),
                    vocab);
}

std::unique_ptr<Tokenizer> load_sentencepiece(const fs::path& file) {
  return std::make_unique<SentencePieceTokenizer>(TextFile(file).text(), file.string());
}

std::unique_ptr<Tokenizer> load_directory(const fs::path& directory) {
  if (fs::exists(directory / "tokenizer.json")) return load_json(directory / "tokenizer.json");
  for (const char* name : {"tokenizer.model", "spiece.model", "sentencepiece.bpe.model"})
    if (fs::exists(directory / name)) return load_sentencepiece(directory / name);
  if (fs::exists(directory / "vocab.json") && fs::exists(directory / "merges.txt")) return load_pair(directory);
  throw DataError(
      "{}: no tokenizer in this directory; expected tokenizer.json, tokenizer.model, spiece.model, or vocab.json and "
      "merges.txt",
      directory.string());
}

}  // namespace

std::unique_ptr<Tokenizer> load_tokenizer(const fs::path& path) {
  if (path == "bytes") return std::make_unique<BpeTokenizer>(byte_definition(), "bytes");
  if (!fs::exists(path))
    throw DataError(
        "{}: no such tokenizer; expected a tokenizer.json, a SentencePiece .model, a directory with one, or "
        "the word 'bytes'",
        path.string());
  if (fs::is_directory(path)) return load_directory(path);
  if (path.filename() == "vocab.json" || path.filename() == "merges.txt") return load_pair(path.parent_path());
  if (path.extension() == ".json") return load_json(path);
  if (path.extension() == ".model") return load_sentencepiece(path);
  throw DataError("{}: not a tokenizer by its name; expected .json or .model", path.string());
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, EncodeOptions options) const {
  std::vector<int32_t> ids;
  encode(text, ids, options);
  return ids;
}

bool Tokenizer::begins_word(int32_t id) const {
  if (is_special(id)) return true;
  const std::string bytes = token_bytes(id);
  return bytes.empty() || std::string_view(" \t\n\v\f\r").find(bytes[0]) != std::string_view::npos;
}

StreamDecoder::StreamDecoder(const Tokenizer& tokenizer, bool after_prompt, bool skip_special)
    : tokenizer_(tokenizer), at_start_(!after_prompt && tokenizer.drops_leading_space()), skip_special_(skip_special) {}

std::string StreamDecoder::next(int32_t id) {
  if (tokenizer_.is_special(id) && skip_special_) return {};
  std::string bytes = tokenizer_.token_bytes(id);
  if (at_start_ && !bytes.empty()) {
    if (bytes.starts_with(' ')) bytes.erase(0, 1);
    at_start_ = false;
  }
  held_ += bytes;
  return take_complete_utf8(held_);
}

std::string StreamDecoder::finish() {
  std::string rest = to_valid_utf8(held_);
  held_.clear();
  return rest;
}

}  // namespace mixtape
