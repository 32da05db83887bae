// SentencePiece's normalization as a table: strings of characters and what replaces them ("precompiled_charsmap").
//
// The file is a little-endian uint32 (the size of the first part in bytes), a double-array trie of uint32 units, and
// the replacements, each ended by a zero byte; a value in the trie is a position there.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace mixtape {

class CharacterMap {
 public:
  // Throws DataError naming `source` for a table that is cut off. Damaged units are found when they are used, and count
  // as the end of a search.
  CharacterMap(std::string bytes, const std::string& source);

  CharacterMap(const CharacterMap&) = delete;  // a part of it points into another
  CharacterMap& operator=(const CharacterMap&) = delete;

  // `text` with each grapheme replaced, as Hugging Face does it: a grapheme of less than six bytes by the entry for its
  // shortest beginning, else each of its characters by its own entry.
  std::string apply(std::string_view text) const;

  const std::string& bytes() const { return bytes_; }

 private:
  std::optional<std::string_view> find(std::string_view text) const;
  void append_grapheme(std::string_view grapheme, std::string& out) const;
  void append_graphemes(std::string_view text, std::string& out) const;

  std::string bytes_;
  std::vector<uint32_t> units_;
  std::string_view replacements_;    // into bytes_
  std::vector<bool> ascii_changes_;  // by character: whether an entry begins with it
};

std::optional<std::string> from_base64(std::string_view text);
std::string to_base64(std::string_view bytes);

}  // namespace mixtape
