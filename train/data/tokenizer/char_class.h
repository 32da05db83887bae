// The three classes of characters that pre-tokenizers tell apart: letters (\p{L}), numbers (\p{N}), white space (\s,
// the property White_Space); everything else is `other`. By ICU's tables.
#pragma once

#include <array>
#include <cstdint>

namespace mixtape {

enum class CharClass : uint8_t { other, letter, number, space };

CharClass char_class_beyond_table(uint32_t code);

// Punctuation as BERT means it: \p{P}, and all of ASCII's signs ($, +, <, ^, ` and others are \p{S}).
bool is_punctuation(uint32_t code);

// The classes of the basic plane, made once.
const std::array<CharClass, 0x10000>& char_class_table();

inline CharClass char_class(const std::array<CharClass, 0x10000>& table, uint32_t code) {
  return code < 0x10000 ? table[code] : char_class_beyond_table(code);
}

}  // namespace mixtape
