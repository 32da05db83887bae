// Byte-pair encoding as a Tokenizer: executes a BpeDefinition.
//
// text -> added tokens cut out -> normalizer -> pre-tokenizer: pieces -> merges within each piece -> ids.
// Pieces repeat, so each thread remembers the ids of recent short ones; most of the work is then a scan and a look-up.
#pragma once

#include <array>
#include <string_view>
#include <unordered_map>

#include "train/data/tokenizer/added_tokens.h"
#include "train/data/tokenizer/bpe_definition.h"
#include "train/data/tokenizer/bpe_merges.h"
#include "train/data/tokenizer/split.h"
#include "train/data/tokenizer/tokenizer.h"

namespace mixtape {

class BpeTokenizer final : public Tokenizer {
 public:
  // `source` names the definition in errors. Throws DataError if the definition contradicts itself: a merge whose
  // result is no token, a byte-level vocabulary without a token for every byte.
  BpeTokenizer(BpeDefinition definition, const std::string& source);

  using Tokenizer::encode;
  void encode(std::string_view text, std::vector<int32_t>& ids, EncodeOptions options = {}) const override;
  std::string decode(std::span<const int32_t> ids, bool skip_special = false) const override;

  int32_t vocab_size() const override { return static_cast<int32_t>(definition_.tokens.size()); }
  const SpecialTokens& special_tokens() const override { return definition_.special; }
  bool is_special(int32_t id) const override;
  std::string token_text(int32_t id) const override;
  std::optional<int32_t> token_id(std::string_view text) const override;
  std::string token_bytes(int32_t id) const override;
  bool drops_leading_space() const override;
  uint64_t fingerprint() const override { return fingerprint_; }
  std::string description() const override;
  std::filesystem::path save(const std::filesystem::path& path) const override;

  const BpeDefinition& definition() const { return definition_; }

 private:
  struct Scratch;

  void check_id(int32_t id) const;
  void index_symbols(const std::string& source);
  std::vector<int32_t> merge_results(const std::string& source) const;
  void find_word_boundaries();
  void encode_text(std::string_view text, bool parse_special, std::vector<int32_t>& ids, Scratch& scratch) const;
  void pre_tokenize(std::string_view piece, size_t step, std::vector<int32_t>& ids, Scratch& scratch) const;
  void encode_piece(std::string_view piece, std::vector<int32_t>& ids, Scratch& scratch) const;
  void merge_piece(std::string_view piece, std::vector<int32_t>& ids, Scratch& scratch) const;
  void first_symbols(std::string_view piece, std::vector<int32_t>& symbols) const;
  std::string decode_with_fallback(std::span<const int32_t> ids, bool skip_special) const;

  BpeDefinition definition_;
  std::unordered_map<std::string, int32_t> id_of_token_;  // tokens of the model
  std::vector<bool> special_;
  std::vector<std::string> bytes_;       // by id: what the token adds to a text
  std::vector<bool> is_byte_;            // by id: <0x00> .. <0xFF>, where the decoder reads them so
  std::array<int32_t, 256> id_of_byte_;  // byte level: the token of the byte; else of its spelling <0x00>, or -1
  std::unordered_map<uint32_t, int32_t> id_of_character_;  // not byte level
  BpeMerges merges_;
  AddedTokenMatcher added_raw_, added_normalized_;
  std::vector<std::optional<Splitter>> splitters_;  // by step of the pre-tokenizer
  std::string word_mark_;  // not byte level: no token has this (▁) behind another character, so words are apart
  uint64_t fingerprint_ = 0;
  uint64_t instance_ = 0;  // tells whose ids a thread remembers
};

}  // namespace mixtape
