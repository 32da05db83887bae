// UTF-8, one character at a time, with the rules of the Unicode standard for broken input (section 3.9, table 3-8):
// each maximal part that could have begun a character counts as one fault and reads as U+FFFD.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace mixtape {

inline constexpr char32_t replacement_character = 0xFFFD;
inline constexpr std::string_view replacement_text = "\xEF\xBF\xBD";  // the same in UTF-8

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

// Takes the next character off `text`, which is not empty; U+FFFD for a fault.
inline char32_t take_character(std::string_view& text) {
  const Utf8Char c = utf8_char(text, 0);
  text.remove_prefix(c.length);
  return c.code;
}

inline void append_utf8(std::string& out, uint32_t code) {
  const auto tail = [&](int shift) { out += static_cast<char>(0x80 | (code >> shift & 0x3F)); };
  if (code < 0x80) {
    out += static_cast<char>(code);
  } else if (code < 0x800) {
    out += static_cast<char>(0xC0 | code >> 6);
    tail(0);
  } else if (code < 0x10000) {
    out += static_cast<char>(0xE0 | code >> 12);
    tail(6), tail(0);
  } else {
    out += static_cast<char>(0xF0 | code >> 18);
    tail(12), tail(6), tail(0);
  }
}

inline bool is_utf8(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const Utf8Char c = utf8_char(text, at);
    if (!c.valid) return false;
    at += c.length;
  }
  return true;
}

// Appends `bytes` with every fault replaced by U+FFFD, up to the end or, with `keep_truncated`, up to a character that
// the end cuts off; returns where.
inline size_t append_valid_utf8(std::string& out, std::string_view bytes, bool keep_truncated) {
  size_t at = 0;
  while (at < bytes.size()) {
    const Utf8Char c = utf8_char(bytes, at);
    if (c.truncated && keep_truncated) break;
    out += c.valid ? bytes.substr(at, c.length) : replacement_text;
    at += c.length;
  }
  return at;
}

// `bytes` with every fault replaced by U+FFFD.
inline std::string to_valid_utf8(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size());
  append_valid_utf8(out, bytes, false);
  return out;
}

// Moves what is decided of `bytes` to the result, faults replaced; a character that may still be completed stays.
inline std::string take_complete_utf8(std::string& bytes) {
  std::string out;
  bytes.erase(0, append_valid_utf8(out, bytes, true));
  return out;
}

// Where the character that holds byte `at` begins, in valid UTF-8; `at` itself beyond the end.
inline size_t character_start(std::string_view text, size_t at) {
  while (at > 0 && at < text.size() && (static_cast<uint8_t>(text[at]) & 0xC0) == 0x80) --at;
  return at;
}

}  // namespace mixtape
