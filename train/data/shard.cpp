#include "train/data/shard.h"

#include <xxhash.h>

#include <algorithm>
#include <cstring>

#include "core/base/error.h"
#include "train/data/foreign_formats.h"
#include "train/data/mapped_file.h"
#include "train/data/output_file.h"
#include "train/data/token_type.h"

namespace mixtape {
namespace {

constexpr char magic[] = "MIXTOKEN";
constexpr size_t flush_bytes = size_t(1) << 20;

struct Header {
  char magic[8];
  uint32_t version;
  uint32_t token_bytes;
  uint64_t num_tokens;
  uint64_t num_documents;
  uint64_t text_bytes;
  uint64_t fingerprint;
  int32_t vocab_size;
  int32_t eos_id;
  uint64_t checksum;
  unsigned char reserved[56];
  uint64_t header_checksum;
};
static_assert(sizeof(Header) == shard_header_bytes);

uint64_t checksum_of(const Header& header) { return XXH3_64bits(&header, offsetof(Header, header_checksum)); }

std::span<const unsigned char> bytes_of(const void* data, size_t size) {
  return {static_cast<const unsigned char*>(data), size};
}

uint64_t padded(uint64_t bytes) { return (bytes + 7) / 8 * 8; }

ShardInfo check_header(const MappedFile& file) {
  const std::string path = file.path().string();
  if (file.size() < sizeof(Header) || std::memcmp(file.data(), magic, 8) != 0)
    throw DataError("{}: not a token shard: it does not begin with {}", path, magic);
  const Header header = load<Header>(file.data());
  if (header.version != shard_version)
    throw DataError("{}: version {} of the shard format, this program reads {}", path, header.version, shard_version);
  if (header.header_checksum != checksum_of(header))
    throw DataError("{}: the header is damaged (its checksum differs); prepare the data again", path);

  const ShardInfo info{header.num_tokens, header.num_documents, header.text_bytes, header.fingerprint,
                       header.vocab_size, header.eos_id,        header.checksum};
  if (info.vocab_size <= 0 || info.eos_id < -1 || info.eos_id >= info.vocab_size)
    throw DataError("{}: vocabulary of {} tokens with end of sequence {}", path, info.vocab_size, info.eos_id);
  if (header.token_bytes != uint32_t(info.token_bytes()))
    throw DataError("{}: {} bytes a token, expected {} for a vocabulary of {}", path, header.token_bytes,
                    info.token_bytes(), info.vocab_size);
  // Counts are bounded by the file's size first, so that the sum cannot overflow.
  const uint64_t body = file.size() - sizeof(Header);
  if (info.num_tokens > body / header.token_bytes || info.num_documents >= body / 8 ||
      padded(info.num_tokens * header.token_bytes) + (info.num_documents + 1) * 8 != body)
    throw DataError("{}: {} tokens in {} documents do not make a file of {} bytes: it is damaged or incomplete", path,
                    info.num_tokens, info.num_documents, file.size());
  return info;
}

class ShardTokens final : public TokenSource {
 public:
  explicit ShardTokens(const std::filesystem::path& path) : file_(path), shard_(check_header(file_)) {
    info_ = {.format = TokenFormat::mixtape,
             .path = path.string(),
             .token_bytes = shard_.token_bytes(),
             .fingerprint = shard_.fingerprint,
             .vocab_size = shard_.vocab_size,
             .text_bytes = shard_.text_bytes};
    if (shard_.eos_id >= 0) info_.eos_id = shard_.eos_id;
    type_ = shard_.token_bytes() == 2 ? TokenType::u16 : TokenType::u32;
    tokens_ = file_.data() + sizeof(Header);
    index_ = tokens_ + padded(shard_.num_tokens * uint64_t(shard_.token_bytes()));
    check_index();
  }

  const TokenSourceInfo& info() const override { return info_; }
  uint64_t num_tokens() const override { return shard_.num_tokens; }
  uint64_t num_documents() const override { return shard_.num_documents; }

  DocumentSpan document(uint64_t index) const override {
    if (index >= shard_.num_documents) throw DataError("{}: document {} of {}", info_.path, index, num_documents());
    const uint64_t first = offset(index), length = offset(index + 1) - first;
    return {first, info_.eos_id ? length - 1 : length};
  }

  void read(uint64_t first, std::span<int32_t> out) const override {
    check_range(info_, first, out.size(), shard_.num_tokens);
    widen(type_, tokens_ + first * uint64_t(size_of(type_)), out);
  }

  void verify() const override {
    const uint64_t found = XXH3_64bits(tokens_, file_.size() - sizeof(Header));
    if (found != shard_.checksum)
      throw DataError("{}: checksum {:016x}, expected {:016x}: the file is damaged; prepare the data again", info_.path,
                      found, shard_.checksum);
  }

 private:
  uint64_t offset(uint64_t index) const { return load<uint64_t>(index_ + index * 8); }

  void check_index() const {
    const uint64_t least = info_.eos_id ? 1 : 0;  // tokens of a document
    uint64_t before = offset(0);
    bool good = before == 0;
    for (uint64_t d = 1; good && d <= shard_.num_documents; ++d) {
      const uint64_t next = offset(d);
      good = next >= before && next - before >= least && next <= shard_.num_tokens;
      before = next;
    }
    if (!good || before != shard_.num_tokens)
      throw DataError("{}: the index of documents is damaged; prepare the data again", info_.path);
  }

  MappedFile file_;
  ShardInfo shard_;
  TokenSourceInfo info_;
  TokenType type_ = TokenType::u16;
  const unsigned char *tokens_ = nullptr, *index_ = nullptr;
};

}  // namespace

struct ShardWriter::Output {
  explicit Output(std::filesystem::path path) : file(std::move(path)) { XXH3_64bits_reset(&*hash); }

  void write(std::span<const unsigned char> bytes) {
    file.write(bytes);
    XXH3_64bits_update(&*hash, bytes.data(), bytes.size());
  }

  OutputFile file;
  struct FreeHash {
    void operator()(XXH3_state_t* state) const { XXH3_freeState(state); }
  };
  std::unique_ptr<XXH3_state_t, FreeHash> hash{XXH3_createState()};
};

ShardWriter::ShardWriter(std::filesystem::path path, uint64_t tokenizer_fingerprint, int32_t vocab_size, int32_t eos_id)
    : info_{.fingerprint = tokenizer_fingerprint, .vocab_size = vocab_size, .eos_id = eos_id},
      output_(std::make_unique<Output>(std::move(path))) {
  const Header empty{};
  output_->file.write(bytes_of(&empty, sizeof empty));
}

ShardWriter::~ShardWriter() = default;

void ShardWriter::append(std::span<const int32_t> tokens) {
  if (tokens.empty()) return;
  const int width = info_.token_bytes();
  for (const int32_t token : tokens) {
    if (token < 0 || token >= info_.vocab_size)
      throw DataError("token {} does not belong to a vocabulary of {}", token, info_.vocab_size);
    const size_t at = buffer_.size();
    buffer_.resize(at + size_t(width));
    std::memcpy(buffer_.data() + at, &token, size_t(width));
  }
  info_.num_tokens += tokens.size();
  last_token_ = tokens.back();
  if (buffer_.size() >= flush_bytes) flush();
}

void ShardWriter::end_document(uint64_t text_bytes) {
  if (info_.eos_id >= 0 && (info_.num_tokens == offsets_.back() || last_token_ != info_.eos_id))
    throw DataError("document {} does not end with token {}", info_.num_documents, info_.eos_id);
  offsets_.push_back(info_.num_tokens);
  ++info_.num_documents;
  info_.text_bytes += text_bytes;
}

void ShardWriter::flush() {
  output_->write(buffer_);
  buffer_.clear();
}

ShardInfo ShardWriter::finish() {
  if (offsets_.back() != info_.num_tokens) throw DataError("the last document of the shard was not ended");
  buffer_.resize(buffer_.size() + padded(info_.num_tokens * uint64_t(info_.token_bytes())) -
                 info_.num_tokens * uint64_t(info_.token_bytes()));
  flush();
  output_->write(bytes_of(offsets_.data(), offsets_.size() * sizeof(uint64_t)));
  info_.checksum = XXH3_64bits_digest(&*output_->hash);

  Header header{.version = shard_version,
                .token_bytes = uint32_t(info_.token_bytes()),
                .num_tokens = info_.num_tokens,
                .num_documents = info_.num_documents,
                .text_bytes = info_.text_bytes,
                .fingerprint = info_.fingerprint,
                .vocab_size = info_.vocab_size,
                .eos_id = info_.eos_id,
                .checksum = info_.checksum};
  std::memcpy(header.magic, magic, sizeof header.magic);
  header.header_checksum = checksum_of(header);
  output_->file.overwrite(bytes_of(&header, sizeof header), 0);
  output_->file.commit();
  return info_;
}

std::shared_ptr<const TokenSource> open_shard(const std::filesystem::path& path) {
  return std::make_shared<ShardTokens>(path);
}

ShardInfo read_shard_info(const std::filesystem::path& path) { return check_header(MappedFile(path)); }

}  // namespace mixtape
