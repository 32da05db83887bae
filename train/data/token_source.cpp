#include "train/data/token_source.h"

#include <algorithm>
#include <array>
#include <fstream>
#include <utility>

#include "core/base/error.h"
#include "train/data/foreign_formats.h"
#include "train/data/manifest.h"
#include "train/data/shard.h"

namespace mixtape {
namespace {

namespace fs = std::filesystem;

constexpr std::array<std::pair<TokenFormat, std::string_view>, 5> format_names{{{TokenFormat::autodetect, "auto"},
                                                                                {TokenFormat::mixtape, "mixtape"},
                                                                                {TokenFormat::llmc, "llmc"},
                                                                                {TokenFormat::nanogpt, "nanogpt"},
                                                                                {TokenFormat::megatron, "megatron"}}};

class Concatenated final : public TokenSource {
 public:
  Concatenated(std::vector<std::shared_ptr<const TokenSource>> parts, std::string path) : parts_(std::move(parts)) {
    info_ = parts_.front()->info();
    info_.path = std::move(path);
    if (info_.text_bytes) info_.text_bytes = 0;
    for (const auto& part : parts_) {
      check_same(part->info());
      if (info_.text_bytes) *info_.text_bytes += part->info().text_bytes.value_or(0);
      first_tokens_.push_back(first_tokens_.back() + part->num_tokens());
      first_documents_.push_back(first_documents_.back() + part->num_documents());
    }
  }

  const TokenSourceInfo& info() const override { return info_; }
  uint64_t num_tokens() const override { return first_tokens_.back(); }
  uint64_t num_documents() const override { return first_documents_.back(); }

  DocumentSpan document(uint64_t index) const override {
    if (index >= num_documents()) throw DataError("{}: document {} of {}", info_.path, index, num_documents());
    const size_t p = part_of(first_documents_, index);
    DocumentSpan span = parts_[p]->document(index - first_documents_[p]);
    span.first += first_tokens_[p];
    return span;
  }

  void read(uint64_t first, std::span<int32_t> out) const override {
    check_range(info_, first, out.size(), num_tokens());
    for (size_t p = out.empty() ? 0 : part_of(first_tokens_, first); !out.empty(); ++p) {
      const size_t count = std::min<uint64_t>(out.size(), first_tokens_[p + 1] - first);
      parts_[p]->read(first - first_tokens_[p], out.first(count));
      first += count;
      out = out.subspan(count);
    }
  }

  void verify() const override {
    for (const auto& part : parts_) part->verify();
  }

 private:
  static size_t part_of(const std::vector<uint64_t>& firsts, uint64_t index) {
    return size_t(std::upper_bound(firsts.begin(), firsts.end(), index) - firsts.begin()) - 1;
  }

  void check_same(const TokenSourceInfo& part) const {
    if (part.fingerprint != info_.fingerprint || part.vocab_size != info_.vocab_size || part.eos_id != info_.eos_id)
      throw DataError("{} and {}: made with different tokenizers, so they cannot be one source",
                      parts_.front()->info().path, part.path);
  }

  std::vector<std::shared_ptr<const TokenSource>> parts_;
  TokenSourceInfo info_;
  std::vector<uint64_t> first_tokens_{0}, first_documents_{0};
};

TokenFormat detect(const fs::path& path) {
  if (path.extension() == shard_extension) return TokenFormat::mixtape;
  if (path.extension() == ".idx") return TokenFormat::megatron;
  if (path.extension() == ".bin") {
    if (looks_like_llmc(path)) return TokenFormat::llmc;
    if (fs::exists(fs::path(path).replace_extension(".idx"))) return TokenFormat::megatron;
    throw DataError(
        "{}: neither llm.c's magic nor an .idx beside it; if these are nanoGPT's bare tokens, say format: "
        "nanogpt",
        path.string());
  }
  throw DataError(
      "{}: not a file of tokens (expected {}, .bin or .idx); text must be prepared first: mixtape data "
      "prepare",
      path.string(), shard_extension);
}

std::shared_ptr<const TokenSource> open_file(const fs::path& path, const OpenTokens& options) {
  switch (options.format == TokenFormat::autodetect ? detect(path) : options.format) {
    case TokenFormat::llmc:
      return open_llmc(path, options.eos_id);
    case TokenFormat::nanogpt:
      return open_nanogpt(path, options.eos_id);
    case TokenFormat::megatron:
      return open_megatron(path, options.eos_id);
    default:
      return open_shard(path);
  }
}

std::shared_ptr<const TokenSource> open_directory(const fs::path& directory, const OpenTokens& options) {
  if (fs::exists(directory / manifest_name)) return open_manifest(directory);
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(directory)) {
    const fs::path extension = entry.path().extension();
    if (extension == shard_extension || extension == ".partial")
      throw DataError("{}: holds shards but no {}: its preparation was interrupted; run mixtape data prepare again",
                      directory.string(), manifest_name);
    // Of a Megatron pair one file stands for both.
    if (extension == ".bin") files.push_back(entry.path());
  }
  if (files.empty() && fs::exists(directory / "train" / manifest_name))
    throw DataError("{}: holds train/ and validation/; name one of them: path: {}", directory.string(),
                    (directory / "train").string());
  if (files.empty()) throw DataError("{}: holds neither a {} nor .bin files", directory.string(), manifest_name);
  std::sort(files.begin(), files.end());
  std::vector<std::shared_ptr<const TokenSource>> parts;
  for (const fs::path& file : files) parts.push_back(open_file(file, options));
  return concatenate(std::move(parts), directory.string());
}

}  // namespace

TokenFormat parse_token_format(std::string_view name) {
  for (const auto& [format, known] : format_names)
    if (name == known) return format;
  throw ConfigError("format '{}' of token files is not known, expected auto, mixtape, llmc, nanogpt or megatron", name);
}

std::string_view name_of(TokenFormat format) {
  for (const auto& [known, name] : format_names)
    if (known == format) return name;
  return "?";
}

void check_range(const TokenSourceInfo& info, uint64_t first, uint64_t count, uint64_t total) {
  if (first > total || count > total - first)
    throw DataError("{}: tokens {} to {} of {}", info.path, first, first + count, total);
}

std::shared_ptr<const TokenSource> open_tokens(const fs::path& path, const OpenTokens& options) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (fs::is_directory(status)) return open_directory(path, options);
  if (!fs::exists(status)) {
    if (fs::exists(path.string() + ".idx")) return open_megatron(path.string() + ".idx", options.eos_id);
    throw DataError("{}: no such file or directory", path.string());
  }
  return open_file(path, options);
}

std::shared_ptr<const TokenSource> concatenate(std::vector<std::shared_ptr<const TokenSource>> parts,
                                               std::string path) {
  if (parts.empty()) throw DataError("{}: no token files", path);
  if (parts.size() == 1) return parts.front();
  return std::make_shared<Concatenated>(std::move(parts), std::move(path));
}

}  // namespace mixtape
