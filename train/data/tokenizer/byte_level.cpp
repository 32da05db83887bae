#include "train/data/tokenizer/byte_level.h"

#include "core/base/utf8.h"

namespace mixtape {

const std::array<uint32_t, 256>& byte_level_alphabet() {
  static const auto alphabet = [] {
    std::array<uint32_t, 256> characters{};
    uint32_t next = 0x100;
    for (uint32_t byte = 0; byte < 256; ++byte) {
      const bool printable = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
      characters[byte] = printable ? byte : next++;
    }
    return characters;
  }();
  return alphabet;
}

std::string to_byte_level(std::string_view bytes) {
  std::string out;
  for (const char c : bytes) append_utf8(out, byte_level_alphabet()[static_cast<uint8_t>(c)]);
  return out;
}

std::optional<std::string> from_byte_level(std::string_view spelling) {
  static const auto byte_of = [] {
    std::array<int16_t, 0x144> bytes{};
    bytes.fill(-1);
    for (int byte = 0; byte < 256; ++byte) bytes[byte_level_alphabet()[byte]] = static_cast<int16_t>(byte);
    return bytes;
  }();
  std::string out;
  for (size_t at = 0; at < spelling.size();) {
    const Utf8Char c = utf8_char(spelling, at);
    if (!c.valid || c.code >= byte_of.size() || byte_of[c.code] < 0) return std::nullopt;
    out += static_cast<char>(byte_of[c.code]);
    at += c.length;
  }
  return out;
}

}  // namespace mixtape
