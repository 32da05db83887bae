// Megatron-LM's PREFIX.idx and PREFIX.bin.
//
//   .idx: "MMIDIDX\0\0" | u64 version 1 | u8 type code | u64 S sequences | u64 P document indices | i32 length[S]
//         | i64 pointer[S], bytes into .bin | i64 document[P], sequence index, first 0, last S
//   .bin: the sequences' tokens, one after the other
// The header takes 34 bytes, so all arrays are unaligned.
#include <cstring>
#include <string_view>

#include "core/base/error.h"
#include "train/data/foreign_formats.h"

namespace mixtape {
namespace {

constexpr std::string_view magic{"MMIDIDX\0\0", 9};
constexpr uint64_t header_bytes = 34;

class MegatronTokens final : public TokenSource {
 public:
  MegatronTokens(const std::filesystem::path& index, const std::filesystem::path& tokens, std::optional<int32_t> eos_id)
      : index_(index), tokens_(tokens) {
    info_.format = TokenFormat::megatron;
    info_.path = tokens.string();
    info_.eos_id = eos_id;
    read_header();
    check_sequences();
    check_documents();
  }

  const TokenSourceInfo& info() const override { return info_; }
  uint64_t num_tokens() const override { return num_tokens_; }
  uint64_t num_documents() const override { return num_indices_ - 1; }

  DocumentSpan document(uint64_t index) const override {
    if (index >= num_documents()) throw DataError("{}: document {} of {}", info_.path, index, num_documents());
    const uint64_t first = sequence_begin(document_index(index)), end = sequence_begin(document_index(index + 1));
    uint64_t length = end - first;
    if (length > 0 && info_.eos_id) {
      int32_t last = 0;
      read(end - 1, {&last, 1});
      if (last == *info_.eos_id) --length;
    }
    return {first, length};
  }

  void read(uint64_t first, std::span<int32_t> out) const override {
    check_range(info_, first, out.size(), num_tokens_);
    widen(type_, tokens_.data() + first * uint64_t(size_of(type_)), out);
  }

 private:
  void read_header() {
    const std::string path = index_.path().string();
    if (index_.size() < header_bytes || std::memcmp(index_.data(), magic.data(), magic.size()) != 0)
      throw DataError("{}: does not begin like an index of Megatron (MMIDIDX)", path);
    const uint64_t version = load<uint64_t>(index_.data() + 9);
    if (version != 1) throw DataError("{}: version {} of Megatron's index, expected 1", path, version);
    type_ = token_type(index_.data()[17]);
    info_.token_bytes = size_of(type_);
    num_sequences_ = load<uint64_t>(index_.data() + 18);
    num_indices_ = load<uint64_t>(index_.data() + 26);
    // Counts are bounded by the file's size first, so that the sums below cannot overflow.
    const uint64_t body = index_.size() - header_bytes;
    if (num_sequences_ > body / 12 || num_indices_ > body / 8 || num_indices_ == 0 ||
        num_sequences_ * 12 + num_indices_ * 8 != body)
      throw DataError("{}: {} sequences and {} document indices do not fit a file of {} bytes", path, num_sequences_,
                      num_indices_, index_.size());
    lengths_ = index_.data() + header_bytes;
    pointers_ = lengths_ + num_sequences_ * 4;
    documents_ = pointers_ + num_sequences_ * 8;
  }

  TokenType token_type(unsigned code) const {
    switch (code) {
      case 1:
        return TokenType::u8;
      case 2:
        return TokenType::i8;
      case 3:
        return TokenType::i16;
      case 4:
        return TokenType::i32;
      case 5:
        return TokenType::i64;
      case 8:
        return TokenType::u16;
      default:
        throw DataError("{}: type code {}, expected an integer type (1 to 5 or 8)", index_.path().string(), code);
    }
  }

  void check_sequences() {
    const uint64_t width = uint64_t(size_of(type_));
    num_tokens_ = tokens_.size() / width;
    uint64_t expected = 0;
    for (uint64_t s = 0; s < num_sequences_; ++s) {
      const int32_t length = load<int32_t>(lengths_ + s * 4);
      const int64_t pointer = load<int64_t>(pointers_ + s * 8);
      if (length < 0 || pointer < 0 || uint64_t(pointer) != expected * width ||
          uint64_t(length) > num_tokens_ - expected)
        throw DataError("{}: sequence {} has {} tokens at byte {}, expected byte {} of a .bin file of {} bytes",
                        index_.path().string(), s, length, pointer, expected * width, tokens_.size());
      expected += uint64_t(length);
    }
    if (expected * width != tokens_.size())
      throw DataError("{}: {} bytes, but its index describes {}", tokens_.path().string(), tokens_.size(),
                      expected * width);
  }

  void check_documents() const {
    uint64_t before = 0;
    for (uint64_t d = 0; d < num_indices_; ++d) {
      const uint64_t sequence = document_index(d);
      if ((d == 0 && sequence != 0) || sequence < before || sequence > num_sequences_)
        throw DataError("{}: document index {} is {}, expected {} to {}", index_.path().string(), d, sequence, before,
                        num_sequences_);
      before = sequence;
    }
    if (before != num_sequences_)
      throw DataError("{}: the last document ends at sequence {} of {}", index_.path().string(), before,
                      num_sequences_);
  }

  uint64_t document_index(uint64_t d) const { return load<uint64_t>(documents_ + d * 8); }
  uint64_t sequence_begin(uint64_t s) const {
    return s == num_sequences_ ? num_tokens_ : load<uint64_t>(pointers_ + s * 8) / uint64_t(size_of(type_));
  }

  MappedFile index_, tokens_;
  TokenSourceInfo info_;
  TokenType type_ = TokenType::u16;
  uint64_t num_sequences_ = 0, num_indices_ = 0, num_tokens_ = 0;
  const unsigned char *lengths_ = nullptr, *pointers_ = nullptr, *documents_ = nullptr;
};

}  // namespace

std::shared_ptr<const TokenSource> open_megatron(const std::filesystem::path& path, std::optional<int32_t> eos_id) {
  std::filesystem::path prefix = path;
  if (prefix.extension() == ".idx" || prefix.extension() == ".bin") prefix.replace_extension();
  return std::make_shared<MegatronTokens>(prefix.string() + ".idx", prefix.string() + ".bin", eos_id);
}

}  // namespace mixtape
