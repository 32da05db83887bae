// A tokenizer.json as a Tokenizer: executes a TokenizerDefinition.
//
// text -> added tokens cut out -> normalizer -> pre-tokenizer: pieces -> model: ids -> template.
#pragma once

#include <string_view>
#include <unordered_map>

#include "train/data/tokenizer/added_tokens.h"
#include "train/data/tokenizer/definition.h"
#include "train/data/tokenizer/piece_cache.h"
#include "train/data/tokenizer/token_model.h"
#include "train/data/tokenizer/tokenizer.h"

namespace mixtape {

class PipelineTokenizer final : public Tokenizer {
 public:
  // `source` names the definition in errors. Throws DataError if the definition contradicts itself.
  PipelineTokenizer(TokenizerDefinition definition, const std::string& source);
  PipelineTokenizer(const PipelineTokenizer&) = delete;  // the model refers to the definition
  PipelineTokenizer& operator=(const PipelineTokenizer&) = delete;

  using Tokenizer::encode;
  void encode(std::string_view text, std::vector<int32_t>& ids, EncodeOptions options = {}) const override;
  EncodedPair encode_pair(std::string_view first, std::string_view second, bool parse_special) const override;
  std::string decode(std::span<const int32_t> ids, bool skip_special = false) const override;

  int32_t vocab_size() const override { return static_cast<int32_t>(definition_.tokens.size()); }
  const SpecialTokens& special_tokens() const override { return definition_.special; }
  bool is_special(int32_t id) const override;
  bool begins_word(int32_t id) const override;
  std::string token_text(int32_t id) const override;
  std::optional<int32_t> token_id(std::string_view text) const override;
  std::string token_bytes(int32_t id) const override;
  std::string first_token_bytes(int32_t id) const override;
  uint64_t fingerprint() const override { return fingerprint_; }
  std::string description() const override;
  std::filesystem::path save(const std::filesystem::path& path) const override;

  const TokenizerDefinition& definition() const { return definition_; }

 private:
  // Where pieces go.
  struct Target {
    std::vector<int32_t>& ids;
    PieceCache& cache;
    bool plain;
  };
  struct Step {
    std::optional<Splitter> splitter;
    bool add_prefix_space = false;
    std::optional<Metaspace> metaspace;
  };

  void check_id(int32_t id) const;
  void index_tokens();
  void find_word_boundaries();
  void encode_body(std::string_view text, bool parse_special, std::vector<int32_t>& ids) const;
  void encode_text(std::string_view text, bool at_start, Target& target) const;
  void pre_tokenize(std::string_view piece, bool at_start, size_t step, Target& target) const;
  void encode_piece(std::string_view piece, Target& target) const;
  std::filesystem::path save_vocabulary(const std::filesystem::path& file) const;

  TokenizerDefinition definition_;
  std::unordered_map<std::string_view, int32_t> id_of_token_;  // tokens of the model
  std::vector<bool> special_;
  std::vector<std::string> bytes_;  // by id: what the token adds to a text
  std::vector<bool> is_byte_;       // by id: <0x00> .. <0xFF>, where the decoder reads them so
  std::unique_ptr<TokenModel> model_;
  AddedTokenMatcher added_raw_, added_normalized_;
  std::vector<Step> steps_;
  std::string word_mark_;  // no token has this (▁) behind another character, so words are apart
  uint64_t fingerprint_ = 0;
  uint64_t instance_ = 0;  // tells whose ids a thread remembers
};

}  // namespace mixtape
