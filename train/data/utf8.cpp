#include "train/data/utf8.h"

#include <cstring>

namespace mixtape {
namespace {

struct Character {
  size_t length;  // bytes taken, at least 1
  bool valid;
};

// Table 3-7 of the Unicode standard: only the second byte's range depends on the first.
Character read_character(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) { return i < text.size() ? uint8_t(text[i]) : uint8_t(0); };
  const uint8_t first = byte(at);
  if (first < 0x80) return {1, true};
  size_t length = 0;
  uint8_t low = 0x80, high = 0xBF;
  if (first >= 0xC2 && first <= 0xDF) {
    length = 2;
  } else if (first >= 0xE0 && first <= 0xEF) {
    length = 3;
    if (first == 0xE0) low = 0xA0;
    if (first == 0xED) high = 0x9F;
  } else if (first >= 0xF0 && first <= 0xF4) {
    length = 4;
    if (first == 0xF0) low = 0x90;
    if (first == 0xF4) high = 0x8F;
  } else {
    return {1, false};
  }
  for (size_t i = 1; i < length; ++i) {
    if (byte(at + i) < low || byte(at + i) > high) return {i, false};
    low = 0x80, high = 0xBF;
  }
  return {length, true};
}

}  // namespace

size_t valid_utf8_prefix(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    // Most text is ASCII: eight bytes at a time.
    uint64_t word;
    if (at + sizeof word <= text.size()) {
      std::memcpy(&word, text.data() + at, sizeof word);
      if ((word & 0x8080808080808080ull) == 0) {
        at += sizeof word;
        continue;
      }
    }
    const Character character = read_character(text, at);
    if (!character.valid) return at;
    at += character.length;
  }
  return at;
}

uint64_t repair_utf8(std::string& text) {
  size_t good = valid_utf8_prefix(text);
  if (good == text.size()) return 0;
  std::string repaired;
  uint64_t count = 0;
  std::string_view rest = text;
  while (true) {
    repaired.append(rest.substr(0, good));
    rest.remove_prefix(good);
    if (rest.empty()) break;
    repaired += "\xEF\xBF\xBD";
    ++count;
    rest.remove_prefix(read_character(rest, 0).length);
    good = valid_utf8_prefix(rest);
  }
  text = std::move(repaired);
  return count;
}

}  // namespace mixtape
