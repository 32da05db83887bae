// SentencePiece models (unigram, and BPE with byte fallback), through Google's library: its ids, pieces and texts.
//
// T5's sentinels may follow the pieces: with 100 of them <extra_id_99> is the first id behind the model and
// <extra_id_0> the last. Their literals are found in a text with EncodeOptions::parse_special; those of the model's own
// special tokens are text like any other. `add_special` puts bos in front where the model has one, else eos (T5's </s>)
// behind. decode() leaves out control tokens (bos, eos, pad), as the library does.
#pragma once

#include <string>
#include <string_view>

#include "train/data/tokenizer/added_tokens.h"
#include "train/data/tokenizer/tokenizer.h"

namespace sentencepiece {
class SentencePieceProcessor;
}

namespace mixtape {

class SentencePieceTokenizer final : public Tokenizer {
 public:
  // `model`: the content of a tokenizer.model. Throws DataError naming `source` if the library refuses it. A model that
  // has <extra_id_0> among its pieces gets no other sentinels.
  SentencePieceTokenizer(std::string_view model, const std::string& source, int32_t sentinels = 0);
  ~SentencePieceTokenizer() override;

  using Tokenizer::encode;
  void encode(std::string_view text, std::vector<int32_t>& ids, EncodeOptions options = {}) const override;
  EncodedPair encode_pair(std::string_view first, std::string_view second, bool parse_special) const override;
  std::string decode(std::span<const int32_t> ids, bool skip_special = false) const override;

  int32_t vocab_size() const override { return pieces_ + sentinels_; }
  const SpecialTokens& special_tokens() const override { return special_; }
  bool is_special(int32_t id) const override;
  std::string token_text(int32_t id) const override;
  std::optional<int32_t> token_id(std::string_view text) const override;
  std::string token_bytes(int32_t id) const override;
  std::string first_token_bytes(int32_t id) const override;
  uint64_t fingerprint() const override { return fingerprint_; }
  std::string description() const override;
  // The model; where sentinels follow it, tokenizer_config.json beside it says how many.
  std::filesystem::path save(const std::filesystem::path& path) const override;

 private:
  void check_id(int32_t id) const;
  bool strips_first_blank() const;
  void find_roles();
  void encode_part(std::string_view text, std::vector<int32_t>& ids) const;
  std::string decode_pieces(const std::vector<int>& ids) const;

  std::unique_ptr<sentencepiece::SentencePieceProcessor> processor_;
  std::string model_;  // as read: save() writes the same bytes
  int32_t pieces_ = 0, sentinels_ = 0;
  SpecialTokens special_;
  AddedTokenMatcher matcher_{{}};
  bool drops_leading_space_ = false;
  uint64_t fingerprint_ = 0;
};

}  // namespace mixtape
