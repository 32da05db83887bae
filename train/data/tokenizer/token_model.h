// What becomes of one piece of text: one class per algorithm, all behind this interface.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "train/data/tokenizer/definition.h"

namespace mixtape {

class TokenModel {
 public:
  virtual ~TokenModel() = default;

  // Appends the ids of `piece`: bytes for a byte-level definition, else UTF-8. With `plain`, a special token is not
  // found by its literal, even if the model has it as a token. Safe to call from many threads.
  virtual void encode(std::string_view piece, bool plain, std::vector<int32_t>& ids) const = 0;
};

// A model keeps a reference to its definition. Throws DataError naming `source` where the definition contradicts
// itself: a merge whose result is no token, a byte-level vocabulary without a token for every byte.
std::unique_ptr<TokenModel> make_bpe_model(const TokenizerDefinition& definition, const std::string& source);
std::unique_ptr<TokenModel> make_wordpiece_model(const TokenizerDefinition& definition);
std::unique_ptr<TokenModel> make_unigram_model(const TokenizerDefinition& definition);

// By id.
std::vector<bool> special_flags(const TokenizerDefinition& definition);

// The tokens <0x00> to <0xFF> of a model with byte fallback.
class ByteFallback {
 public:
  explicit ByteFallback(const TokenizerDefinition& definition);
  // Appends the tokens of all bytes of `text`, or nothing and returns false if one is missing.
  bool encode(std::string_view text, std::vector<int32_t>& ids) const;

 private:
  std::vector<int32_t> id_of_byte_;  // or -1
};

// "<0x0A>" -> 10
std::optional<uint8_t> byte_of_spelling(std::string_view token);

}  // namespace mixtape
