#include "train/data/tokenizer/token_model.h"

#include <algorithm>

namespace mixtape {

std::vector<bool> special_flags(const TokenizerDefinition& definition) {
  std::vector<bool> special(definition.tokens.size());
  for (const AddedToken& token : definition.added) special[token.id] = token.special;
  return special;
}

std::optional<uint8_t> byte_of_spelling(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return std::nullopt;
  int value = 0;
  for (const char c : token.substr(3, 2)) {
    const int digit = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                             : -1;
    if (digit < 0) return std::nullopt;
    value = value * 16 + digit;
  }
  return static_cast<uint8_t>(value);
}

ByteFallback::ByteFallback(const TokenizerDefinition& definition) : id_of_byte_(256, -1) {
  for (size_t id = 0; id < definition.tokens.size(); ++id)
    if (const auto byte = byte_of_spelling(definition.tokens[id]); byte && definition.in_model[id])
      id_of_byte_[*byte] = static_cast<int32_t>(id);
}

bool ByteFallback::encode(std::string_view text, std::vector<int32_t>& ids) const {
  const auto known = [&](char c) { return id_of_byte_[static_cast<uint8_t>(c)] >= 0; };
  if (!std::ranges::all_of(text, known)) return false;
  for (const char c : text) ids.push_back(id_of_byte_[static_cast<uint8_t>(c)]);
  return true;
}

}  // namespace mixtape
