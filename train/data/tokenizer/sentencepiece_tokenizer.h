// SentencePiece models (unigram, and BPE with byte fallback), through Google's library: its ids, pieces and texts.
//
// Literals of special tokens in a text are text like any other here, whatever EncodeOptions say; `add_special` puts bos
// in front where the model has one. decode() leaves out control tokens (bos, eos, pad), as the library does.
#pragma once

#include <string>
#include <string_view>

#include "train/data/tokenizer/tokenizer.h"

namespace sentencepiece {
class SentencePieceProcessor;
}

namespace mixtape {

class SentencePieceTokenizer final : public Tokenizer {
 public:
  // `model`: the content of a tokenizer.model. Throws DataError naming `source` if the library refuses it.
  SentencePieceTokenizer(std::string_view model, const std::string& source);
  ~SentencePieceTokenizer() override;

  using Tokenizer::encode;
  void encode(std::string_view text, std::vector<int32_t>& ids, EncodeOptions options = {}) const override;
  std::string decode(std::span<const int32_t> ids, bool skip_special = false) const override;

  int32_t vocab_size() const override { return size_; }
  const SpecialTokens& special_tokens() const override { return special_; }
  bool is_special(int32_t id) const override;
  std::string token_text(int32_t id) const override;
  std::optional<int32_t> token_id(std::string_view text) const override;
  std::string token_bytes(int32_t id) const override;
  bool drops_leading_space() const override { return drops_leading_space_; }
  uint64_t fingerprint() const override { return fingerprint_; }
  std::string description() const override;
  std::filesystem::path save(const std::filesystem::path& path) const override;

 private:
  void check_id(int32_t id) const;
  bool strips_first_blank() const;

  std::unique_ptr<sentencepiece::SentencePieceProcessor> processor_;
  std::string model_;  // as read: save() writes the same bytes
  int32_t size_ = 0;
  SpecialTokens special_;
  bool drops_leading_space_ = false;
  uint64_t fingerprint_ = 0;
};

}  // namespace mixtape
