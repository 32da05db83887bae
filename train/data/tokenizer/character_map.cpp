#include "train/data/tokenizer/character_map.h"

#include <unicode/brkiter.h>
#include <unicode/utext.h>

#include <algorithm>
#include <cstring>
#include <memory>

#include "core/base/error.h"
#include "core/base/utf8.h"

namespace mixtape {
namespace {

// The fields of a unit of the trie (Darts-clone's layout).
bool has_leaf(uint32_t unit) { return unit >> 8 & 1; }
uint32_t value_of(uint32_t unit) { return unit & 0x7FFFFFFF; }
uint32_t label_of(uint32_t unit) { return unit & 0x800000FF; }
uint32_t offset_of(uint32_t unit) { return unit >> 10 << ((unit & 0x200) >> 6); }

// One a thread: a break iterator is costly to make and keeps a position.
icu::BreakIterator& grapheme_iterator() {
  static thread_local const auto iterator = [] {
    UErrorCode status = U_ZERO_ERROR;
    std::unique_ptr<icu::BreakIterator> made(
        icu::BreakIterator::createCharacterInstance(icu::Locale::getRoot(), status));
    if (U_FAILURE(status)) throw DataError("ICU cannot find the ends of characters: {}", u_errorName(status));
    return made;
  }();
  return *iterator;
}

constexpr std::string_view base64_digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

}  // namespace

CharacterMap::CharacterMap(std::string bytes, const std::string& source) : bytes_(std::move(bytes)) {
  uint32_t size = 0;
  if (bytes_.size() < sizeof size)
    throw DataError("{}: a table of {} bytes, expected at least {}", source, bytes_.size(), sizeof size);
  std::memcpy(&size, bytes_.data(), sizeof size);
  if (size > bytes_.size() - sizeof size || size % sizeof(uint32_t) != 0)
    throw DataError("{}: the table names {} bytes for its trie, but has {}", source, size, bytes_.size() - sizeof size);
  units_.resize(size / sizeof(uint32_t));
  if (size > 0) std::memcpy(units_.data(), bytes_.data() + sizeof size, size);
  replacements_ = std::string_view(bytes_).substr(sizeof size + size);
  for (int c = 0; c < 0x80; ++c) ascii_changes_.push_back(find(std::string(1, static_cast<char>(c))).has_value());
}

// What replaces the shortest beginning of `text` that has an entry.
std::optional<std::string_view> CharacterMap::find(std::string_view text) const {
  if (units_.empty()) return std::nullopt;
  uint32_t at = offset_of(units_[0]);
  for (const char c : text) {
    const auto byte = static_cast<uint8_t>(c);
    at ^= byte;
    if (byte == 0 || at >= units_.size() || label_of(units_[at]) != byte) return std::nullopt;
    const uint32_t unit = units_[at];
    at ^= offset_of(unit);
    if (!has_leaf(unit)) continue;
    if (at >= units_.size() || value_of(units_[at]) > replacements_.size()) return std::nullopt;
    const std::string_view rest = replacements_.substr(value_of(units_[at]));
    return rest.substr(0, rest.find('\0'));
  }
  return std::nullopt;
}

void CharacterMap::append_grapheme(std::string_view grapheme, std::string& out) const {
  if (grapheme.size() < 6) {
    if (const auto replaced = find(grapheme)) {
      out += *replaced;
      return;
    }
  }
  for (size_t at = 0; at < grapheme.size();) {
    const std::string_view part = grapheme.substr(at, utf8_char(grapheme, at).length);
    out += find(part).value_or(part);
    at += part.size();
  }
}

void CharacterMap::append_graphemes(std::string_view text, std::string& out) const {
  UErrorCode status = U_ZERO_ERROR;
  UText holder = UTEXT_INITIALIZER;
  utext_openUTF8(&holder, text.data(), static_cast<int64_t>(text.size()), &status);
  icu::BreakIterator& iterator = grapheme_iterator();
  iterator.setText(&holder, status);
  if (U_FAILURE(status)) throw DataError("ICU cannot read {} bytes of text: {}", text.size(), u_errorName(status));
  for (int32_t begin = 0, end = iterator.next(); end != icu::BreakIterator::DONE; begin = end, end = iterator.next())
    append_grapheme(text.substr(begin, end - begin), out);
  utext_close(&holder);
}

// Between two ASCII characters a grapheme always ends, but for \r\n: only what lies around others is looked at closely.
std::string CharacterMap::apply(std::string_view text) const {
  const auto ascii = [&](size_t i) { return static_cast<uint8_t>(text[i]) < 0x80; };
  std::string out;
  out.reserve(text.size() + 16);
  for (size_t begin = 0, end; begin < text.size(); begin = end) {
    end = begin + 1;
    while (end < text.size() && (!ascii(end - 1) || !ascii(end) || (text[end - 1] == '\r' && text[end] == '\n'))) ++end;
    if (end - begin > 2)
      append_graphemes(text.substr(begin, end - begin), out);
    else if (end - begin == 1 && !ascii_changes_[static_cast<uint8_t>(text[begin])])
      out += text[begin];
    else
      append_grapheme(text.substr(begin, end - begin), out);
  }
  return out;
}

std::optional<std::string> from_base64(std::string_view text) {
  if (text.size() % 4 != 0) return std::nullopt;
  std::string out;
  out.reserve(text.size() / 4 * 3);
  const size_t padding = text.ends_with("==") ? 2 : text.ends_with("=") ? 1 : 0;
  for (size_t at = 0; at < text.size(); at += 4) {
    uint32_t bits = 0;
    const bool last = at + 4 == text.size();
    for (size_t i = 0; i < 4; ++i) {
      const bool pad = last && i >= 4 - padding;
      const size_t digit = pad ? 0 : base64_digits.find(text[at + i]);
      if (digit == std::string_view::npos) return std::nullopt;
      bits = bits << 6 | static_cast<uint32_t>(digit);
    }
    for (size_t i = 0; i < 3 - (last ? padding : 0); ++i) out += static_cast<char>(bits >> (16 - 8 * i) & 0xFF);
  }
  return out;
}

std::string to_base64(std::string_view bytes) {
  std::string out;
  out.reserve((bytes.size() + 2) / 3 * 4);
  for (size_t at = 0; at < bytes.size(); at += 3) {
    uint32_t bits = 0;
    const size_t count = std::min<size_t>(3, bytes.size() - at);
    for (size_t i = 0; i < 3; ++i) bits = bits << 8 | (i < count ? static_cast<uint8_t>(bytes[at + i]) : 0);
    for (size_t i = 0; i < 4; ++i) out += i <= count ? base64_digits[bits >> (18 - 6 * i) & 0x3F] : '=';
  }
  return out;
}

}  // namespace mixtape
