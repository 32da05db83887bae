#include "train/data/tokenizer/utf8.h"

namespace mixtape {

void append_utf8(std::string& out, uint32_t code) {
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

bool is_utf8(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const Utf8Char c = utf8_char(text, at);
    if (!c.valid) return false;
    at += c.length;
  }
  return true;
}

namespace {

// Converts up to the end or, with `keep_truncated`, up to a character that the text's end cuts off; returns where.
size_t convert(std::string_view bytes, bool keep_truncated, std::string& out) {
  size_t at = 0;
  while (at < bytes.size()) {
    const Utf8Char c = utf8_char(bytes, at);
    if (c.truncated && keep_truncated) break;
    out += c.valid ? bytes.substr(at, c.length) : replacement_text;
    at += c.length;
  }
  return at;
}

}  // namespace

std::string to_valid_utf8(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size());
  convert(bytes, false, out);
  return out;
}

std::string take_complete_utf8(std::string& bytes) {
  std::string out;
  bytes.erase(0, convert(bytes, true, out));
  return out;
}

}  // namespace mixtape
