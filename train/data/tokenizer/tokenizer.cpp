#include "train/data/tokenizer/tokenizer.h"

#include "core/base/error.h"
#include "core/base/utf8.h"
#include "train/data/mapped_file.h"
#include "train/data/tokenizer/pipeline_tokenizer.h"
#include "train/data/tokenizer/sentencepiece_tokenizer.h"
#include "train/data/tokenizer/tokenizer_json.h"
#include "train/data/tokenizer/vocabulary_files.h"

namespace mixtape {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t largest_file = uint64_t{256} << 20;  // the largest published one has 35 MiB

class TextFile {
 public:
  explicit TextFile(const fs::path& path) : path_(path), file_(path) {
    if (file_.size() > largest_file)
      throw DataError("{}: {} MiB is too large for a tokenizer, expected at most {} MiB", path.string(),
                      file_.size() >> 20, largest_file >> 20);
  }
  std::string_view text() const { return {reinterpret_cast<const char*>(file_.data()), file_.size()}; }
  NamedText named() const { return {text(), path_.string()}; }
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
  MappedFile file_;
};

// A file beside the tokenizer, or nothing.
std::optional<TextFile> beside(const fs::path& file, const char* name) {
  const fs::path path = file.parent_path() / name;
  return fs::exists(path) ? std::optional<TextFile>(std::in_place, path) : std::nullopt;
}

std::unique_ptr<Tokenizer> finish(TokenizerDefinition definition, const fs::path& file) {
  for (const char* name : {"special_tokens_map.json", "tokenizer_config.json"})
    if (const auto roles = beside(file, name)) read_roles(roles->named(), definition);
  return std::make_unique<PipelineTokenizer>(std::move(definition), file.string());
}

std::unique_ptr<Tokenizer> load_json(const fs::path& file) {
  return finish(read_tokenizer_json(TextFile(file).text(), file.string()), file);
}

std::unique_ptr<Tokenizer> load_vocabulary(const fs::path& file) {
  const auto config = beside(file, "tokenizer_config.json");
  return finish(
      read_vocab_txt(TextFile(file).named(), config ? read_bert_normalizer(config->named()) : BertNormalizer{}), file);
}

std::unique_ptr<Tokenizer> load_pair(const fs::path& directory) {
  const TextFile vocab(directory / "vocab.json"), merges(directory / "merges.txt");
  TokenizerDefinition definition = read_vocab_and_merges(vocab.named(), merges.named());
  if (const auto config = beside(vocab.path(), "tokenizer_config.json")) read_template(config->named(), definition);
  return finish(std::move(definition), vocab.path());
}

std::unique_ptr<Tokenizer> load_sentencepiece(const fs::path& file) {
  const auto config = beside(file, "tokenizer_config.json");
  return std::make_unique<SentencePieceTokenizer>(TextFile(file).text(), file.string(),
                                                  config ? read_extra_ids(config->named()) : 0);
}

constexpr const char* expected_files =
    "tokenizer.json, tokenizer.model, spiece.model, vocab.txt, or vocab.json and merges.txt";

std::unique_ptr<Tokenizer> load_directory(const fs::path& directory) {
  if (fs::exists(directory / "tokenizer.json")) return load_json(directory / "tokenizer.json");
  for (const char* name : {"tokenizer.model", "spiece.model", "sentencepiece.bpe.model"})
    if (fs::exists(directory / name)) return load_sentencepiece(directory / name);
  if (fs::exists(directory / "vocab.txt")) return load_vocabulary(directory / "vocab.txt");
  if (fs::exists(directory / "vocab.json") && fs::exists(directory / "merges.txt")) return load_pair(directory);
  throw DataError("{}: no tokenizer in this directory; expected {}", directory.string(), expected_files);
}

}  // namespace

std::unique_ptr<Tokenizer> load_tokenizer(const fs::path& path) {
  if (path == "bytes") return std::make_unique<PipelineTokenizer>(byte_definition(), "bytes");
  if (!fs::exists(path))
    throw DataError(
        "{}: no such tokenizer; expected a tokenizer.json, a SentencePiece .model, a vocab.txt, a directory with one, "
        "or the word 'bytes'",
        path.string());
  if (fs::is_directory(path)) return load_directory(path);
  if (path.filename() == "vocab.json" || path.filename() == "merges.txt") return load_pair(path.parent_path());
  if (path.extension() == ".json") return load_json(path);
  if (path.extension() == ".model") return load_sentencepiece(path);
  if (path.extension() == ".txt") return load_vocabulary(path);
  throw DataError("{}: not a tokenizer by its name; expected {}", path.string(), expected_files);
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
    : tokenizer_(tokenizer), at_start_(!after_prompt), skip_special_(skip_special) {}

std::string StreamDecoder::next(int32_t id) {
  if (tokenizer_.is_special(id) && skip_special_) return {};
  const std::string bytes = tokenizer_.token_bytes(id);
  held_ += at_start_ ? tokenizer_.first_token_bytes(id) : bytes;
  at_start_ &= bytes.empty();
  return take_complete_utf8(held_);
}

std::string StreamDecoder::finish() {
  std::string rest = to_valid_utf8(held_);
  held_.clear();
  return rest;
}

}  // namespace mixtape
