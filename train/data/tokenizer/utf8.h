// UTF-8, one character at a time, with the rules of the Unicode standard for broken input (section 3.9, table 3-8):
// each maximal part that could have begun a character counts as one fault and reads as U+FFFD.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace mixtape {

inline constexpr std::string_view replacement_text = "\xEF\xBF\xBD";  // U+FFFD

struct Utf8Char {
  uint32_t code;    // 0xFFFD where broken
  uint32_t length;  // bytes used, at least 1
  bool valid;
  bool truncated;  // broken only because the text ends here: more bytes could complete it
};

// The character at `at`; `at < text.size()`.
inline Utf8Char utf8_char(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t lead = byte(at);
  if (lead < 0x80) return {lead, 1, true, false};
  if (lead < 0xC2 || lead > 0xF4) return {0xFFFD, 1, false, false};
  const uint32_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  // The second byte excludes overlong forms, surrogates and what lies beyond U+10FFFF.
  uint8_t low = 0x80, high = 0xBF;
  if (lead == 0xE0) low = 0xA0;
  if (lead == 0xED) high = 0x9F;
  if (lead == 0xF0) low = 0x90;
  if (lead == 0xF4) high = 0x8F;
  uint32_t code = lead & (0x7F >> length);
  for (uint32_t i = 1; i < length; ++i) {
    if (at + i >= text.size()) return {0xFFFD, i, false, true};
    const uint8_t next = byte(at + i);
    if (next < low || next > high) return {0xFFFD, i, false, false};
    code = code << 6 | (next & 0x3F);
    low = 0x80, high = 0xBF;
  }
  return {code, length, true, false};
}

void append_utf8(std::string& out, uint32_t code);

bool is_utf8(std::string_view text);

// `bytes` with every fault replaced by U+FFFD.
std::string to_valid_utf8(std::string_view bytes);

// Moves what is decided of `bytes` to the result, faults replaced; a character that may still be completed stays.
std::string take_complete_utf8(std::string& bytes);

}  // namespace mixtape
