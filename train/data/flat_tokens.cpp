// llm.c's and nanoGPT's files: one array of tokens, whose documents show only by their delimiter.
#include <algorithm>
#include <array>
#include <fstream>

#include "core/base/error.h"
#include "train/data/foreign_formats.h"

namespace mixtape {
namespace {

constexpr uint64_t llmc_header_bytes = 1024;
constexpr int32_t llmc_magic_16 = 20240520, llmc_version_16 = 1;
constexpr int32_t llmc_magic_32 = 20240801, llmc_version_32 = 7;

class FlatTokens final : public TokenSource {
 public:
  FlatTokens(const std::filesystem::path& path, TokenFormat format) : file_(path) {
    info_.format = format;
    info_.path = path.string();
  }

  const TokenSourceInfo& info() const override { return info_; }
  uint64_t num_tokens() const override { return count_; }
  uint64_t num_documents() const override { return documents_.size(); }
  DocumentSpan document(uint64_t index) const override { return documents_.at(index); }
  void read(uint64_t first, std::span<int32_t> out) const override {
    check_range(info_, first, out.size(), count_);
    widen(type_, file_.data() + offset_ + first * uint64_t(size_of(type_)), out);
  }

  const MappedFile& file() const { return file_; }

  void set_tokens(TokenType type, uint64_t offset, uint64_t count, std::optional<int32_t> eos_id) {
    type_ = type;
    offset_ = offset;
    count_ = count;
    info_.token_bytes = size_of(type);
    info_.eos_id = eos_id;
    find_documents(eos_id);
  }

 private:
  // Documents are the runs between delimiters, so it makes no difference whether these stand before or after.
  void find_documents(std::optional<int32_t> eos_id) {
    if (!eos_id) {
      documents_.push_back({0, count_});
      return;
    }
    uint64_t begin = 0;
    const auto close = [&](uint64_t end) {
      if (end > begin) documents_.push_back({begin, end - begin});
      begin = end + 1;
    };
    std::vector<int32_t> chunk;
    for (uint64_t first = 0; first < count_; first += chunk.size()) {
      chunk.resize(std::min<uint64_t>(count_ - first, 64 * 1024));
      read(first, chunk);
      for (size_t i = 0; i < chunk.size(); ++i)
        if (chunk[i] == *eos_id) close(first + i);
    }
    close(count_);
  }

  MappedFile file_;
  TokenSourceInfo info_;
  TokenType type_ = TokenType::u16;
  uint64_t offset_ = 0, count_ = 0;
  std::vector<DocumentSpan> documents_;
};

}  // namespace

bool looks_like_llmc(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  int32_t magic = 0;
  in.read(reinterpret_cast<char*>(&magic), sizeof magic);
  return in && (magic == llmc_magic_16 || magic == llmc_magic_32);
}

std::shared_ptr<const TokenSource> open_llmc(const std::filesystem::path& path, std::optional<int32_t> eos_id) {
  auto tokens = std::make_shared<FlatTokens>(path, TokenFormat::llmc);
  const MappedFile& file = tokens->file();
  if (file.size() < llmc_header_bytes)
    throw DataError("{}: {} bytes, too short for the 1024-byte header of llm.c's token files", path.string(),
                    file.size());
  const int32_t magic = load<int32_t>(file.data()), version = load<int32_t>(file.data() + 4);
  const int32_t count = load<int32_t>(file.data() + 8);
  if (magic != llmc_magic_16 && magic != llmc_magic_32)
    throw DataError("{}: magic {}, expected llm.c's {} or {}", path.string(), magic, llmc_magic_16, llmc_magic_32);
  const bool wide = magic == llmc_magic_32;
  if (version != (wide ? llmc_version_32 : llmc_version_16))
    throw DataError("{}: version {} of llm.c's token files, expected {}", path.string(), version,
                    wide ? llmc_version_32 : llmc_version_16);
  const TokenType type = wide ? TokenType::u32 : TokenType::u16;
  const uint64_t expected = llmc_header_bytes + uint64_t(std::max(count, 0)) * uint64_t(size_of(type));
  if (count <= 0 || file.size() != expected)
    throw DataError("{}: the header says {} tokens ({} bytes), the file has {} bytes: it is damaged or incomplete",
                    path.string(), count, expected, file.size());
  tokens->set_tokens(type, llmc_header_bytes, uint64_t(count), eos_id);
  return tokens;
}

std::shared_ptr<const TokenSource> open_nanogpt(const std::filesystem::path& path, std::optional<int32_t> eos_id) {
  auto tokens = std::make_shared<FlatTokens>(path, TokenFormat::nanogpt);
  const uint64_t size = tokens->file().size();
  if (size % 2 != 0)
    throw DataError("{}: {} bytes, expected an even number: nanoGPT's tokens take 2 bytes each", path.string(), size);
  if (looks_like_llmc(path))
    throw DataError("{}: this is one of llm.c's token files; leave `format` out or say llmc", path.string());
  tokens->set_tokens(TokenType::u16, 0, size / 2, eos_id);
  return tokens;
}

}  // namespace mixtape
