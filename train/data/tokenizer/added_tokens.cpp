#include "train/data/tokenizer/added_tokens.h"

#include <algorithm>

#include "core/base/utf8.h"
#include "train/data/tokenizer/char_class.h"

namespace mixtape {
namespace {

bool is_blank(const Utf8Char& c) { return c.valid && char_class(char_class_table(), c.code) == CharClass::space; }

size_t skip_spaces(std::string_view text, size_t at) {
  while (at < text.size()) {
    const Utf8Char c = utf8_char(text, at);
    if (!is_blank(c)) break;
    at += c.length;
  }
  return at;
}

// Where the white space begins that ends at `end`, not before `least`.
size_t spaces_before(std::string_view text, size_t least, size_t end) {
  while (end > least) {
    size_t begin = end - 1;
    while (begin > least && (static_cast<uint8_t>(text[begin]) & 0xC0) == 0x80) --begin;
    const Utf8Char c = utf8_char(text, begin);
    if (!is_blank(c) || begin + c.length != end) break;
    end = begin;
  }
  return end;
}

}  // namespace

AddedTokenMatcher::AddedTokenMatcher(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)) {
  std::erase_if(tokens_, [](const AddedToken& token) { return token.content.empty(); });
  const auto first_byte = [](const AddedToken& token) { return static_cast<uint8_t>(token.content[0]); };
  std::ranges::stable_sort(tokens_, [&](const AddedToken& a, const AddedToken& b) {
    if (first_byte(a) != first_byte(b)) return first_byte(a) < first_byte(b);
    return a.content.size() > b.content.size();
  });
  for (const AddedToken& token : tokens_) {
    ++first_[first_byte(token) + 1];
    only_special_ &= token.special;
  }
  for (size_t byte = 0; byte < 256; ++byte) first_[byte + 1] += first_[byte];
}

std::optional<AddedTokenMatcher::Match> AddedTokenMatcher::find(std::string_view text, size_t from,
                                                                bool parse_special) const {
  if (tokens_.empty() || (only_special_ && !parse_special)) return std::nullopt;
  for (size_t at = from; at < text.size(); ++at) {
    const auto byte = static_cast<uint8_t>(text[at]);
    for (uint32_t i = first_[byte]; i < first_[byte + 1]; ++i) {
      const AddedToken& token = tokens_[i];
      if ((token.special && !parse_special) || text.compare(at, token.content.size(), token.content) != 0) continue;
      const size_t end = at + token.content.size();
      return Match{.begin = token.lstrip ? spaces_before(text, from, at) : at,
                   .end = token.rstrip ? skip_spaces(text, end) : end,
                   .id = token.id};
    }
  }
  return std::nullopt;
}

}  // namespace mixtape
