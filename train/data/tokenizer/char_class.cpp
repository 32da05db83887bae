#include "train/data/tokenizer/char_class.h"

#include <unicode/uchar.h>

#include <memory>

namespace mixtape {

CharClass char_class_beyond_table(uint32_t code) {
  const auto c = static_cast<UChar32>(code);
  if (u_isUWhiteSpace(c)) return CharClass::space;
  const uint32_t category = U_GET_GC_MASK(c);
  if (category & U_GC_L_MASK) return CharClass::letter;
  if (category & U_GC_N_MASK) return CharClass::number;
  return CharClass::other;
}

bool is_punctuation(uint32_t code) {
  if (code < 0x80) return code > ' ' && code < 0x7F && char_class_beyond_table(code) == CharClass::other;
  return U_GET_GC_MASK(static_cast<UChar32>(code)) & U_GC_P_MASK;
}

const std::array<CharClass, 0x10000>& char_class_table() {
  static const auto table = [] {
    auto classes = std::make_unique<std::array<CharClass, 0x10000>>();
    for (uint32_t code = 0; code < 0x10000; ++code) (*classes)[code] = char_class_beyond_table(code);
    return classes;
  }();
  return *table;
}

}  // namespace mixtape
