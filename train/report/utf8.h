// A forgiving UTF-8 decoder: text from documents, models and files is shown, so it must never break what shows it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace mixtape {

inline constexpr char32_t replacement_character = 0xFFFD;

// Takes the next code point off `text`. Overlong forms, surrogates, codes above 10FFFF and stray bytes give U+FFFD and
// consume one byte, so that decoding goes on at the next possible start.
inline char32_t take_code_point(std::string_view& text) {
  const auto byte = [&](size_t i) { return uint8_t(text[i]); };
  const uint8_t first = byte(0);
  const size_t length = first < 0x80                    ? 1
                        : first >= 0xC2 && first < 0xE0 ? 2
                        : (first & 0xF0) == 0xE0        ? 3
                        : first >= 0xF0 && first < 0xF5 ? 4
                                                        : 0;
  char32_t code = replacement_character;
  size_t used = 1;
  if (length == 1) {
    code = first;
  } else if (length > 1 && length <= text.size()) {
    char32_t value = first & (0x7F >> length);
    bool valid = true;
    for (size_t i = 1; i < length; ++i) {
      valid = valid && (byte(i) & 0xC0) == 0x80;
      value = value << 6 | (byte(i) & 0x3F);
    }
    constexpr char32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    if (valid && value >= least[length] && value <= 0x10FFFF && (value < 0xD800 || value > 0xDFFF)) {
      code = value;
      used = length;
    }
  }
  text.remove_prefix(used);
  return code;
}

inline void append_utf8(std::string& out, char32_t code) {
  if (code < 0x80) {
    out += char(code);
  } else if (code < 0x800) {
    out += {char(0xC0 | code >> 6), char(0x80 | (code & 0x3F))};
  } else if (code < 0x10000) {
    out += {char(0xE0 | code >> 12), char(0x80 | (code >> 6 & 0x3F)), char(0x80 | (code & 0x3F))};
  } else {
    out += {char(0xF0 | code >> 18), char(0x80 | (code >> 12 & 0x3F)), char(0x80 | (code >> 6 & 0x3F)),
            char(0x80 | (code & 0x3F))};
  }
}

// Control characters (C0 except newline and tab, DEL, C1) and the marks that turn the direction of text around, with
// which a text can pretend to be another.
inline bool is_control(char32_t code) {
  return (code < 0x20 && code != '\n' && code != '\t') || (code >= 0x7F && code < 0xA0) ||
         (code >= 0x202A && code <= 0x202E) || (code >= 0x2066 && code <= 0x2069);
}

}  // namespace mixtape
