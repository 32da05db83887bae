#include "train/data/tokenizer/split.h"

#include <algorithm>
#include <array>
#include <utility>

namespace mixtape {
namespace {

constexpr std::pair<SplitRule, std::string_view> patterns[] = {
    {SplitRule::gpt2, R"('(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)"},
    {SplitRule::gpt2, R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)"},
    {SplitRule::llama3,
     R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"},
    {SplitRule::qwen2,
     R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"},
    {SplitRule::bloom, R"( ?[^(\s|[.,!?…。，、।۔،])]+)"},
};

bool is_newline(char c) { return c == '\n' || c == '\r'; }

// The length of 's 't 'm 'd 're 've 'll at `at`, or 0. Without case, U+017F is an s as well, as in regular expressions.
size_t contraction(std::string_view text, size_t at, bool any_case) {
  const auto letter = [&](size_t i) -> char {
    if (at + i >= text.size()) return 0;
    const char c = text[at + i];
    return any_case && c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c;
  };
  if (letter(0) != '\'') return 0;
  const char first = letter(1), second = letter(2);
  if (first == 's' || first == 't' || first == 'm' || first == 'd') return 2;
  if ((first == 'r' || first == 'v') && second == 'e') return 3;
  if (first == 'l' && second == 'l') return 3;
  if (any_case && text.substr(at + 1, 2) == "\u017F") return 3;
  return 0;
}

// What BLOOM's pattern keeps out of words, beside white space.
bool is_bloom_mark(uint32_t code) {
  constexpr uint32_t marks[] = {'(',    '|',    ')',    '.',    ',',    '!',    '?',
                                0x2026, 0x3002, 0xFF0C, 0x3001, 0x0964, 0x06D4, 0x060C};
  return std::ranges::find(marks, code) != std::end(marks);
}

}  // namespace

std::optional<SplitRule> split_rule_of_pattern(std::string_view pattern) {
  for (const auto& [rule, text] : patterns)
    if (text == pattern) return rule;
  return std::nullopt;
}

std::string_view pattern_of_split_rule(SplitRule rule) {
  for (const auto& [candidate, text] : patterns)
    if (candidate == rule) return text;
  return {};
}

inline bool Splitter::is_at(std::string_view text, size_t at, CharClass type) const {
  return at < text.size() && char_at(text, at).type == type;
}

inline size_t Splitter::run_end(std::string_view text, size_t at, CharClass type) const {
  while (at < text.size()) {
    const Char c = char_at(text, at);
    if (c.type != type) break;
    at += c.length;
  }
  return at;
}

// `\s+(?!\S)|\s+`: a run of white space leaves its last character to the word that follows, unless it is all there is.
// With `newlines_end_piece`, `\s*[\r\n]+` goes first: the run up to its last newline.
size_t Splitter::blank_end(std::string_view text, size_t begin, bool newlines_end_piece) const {
  size_t end = begin, last = begin, after_newline = 0;
  while (end < text.size()) {
    const Char c = char_at(text, end);
    if (c.type != CharClass::space) break;
    last = end;
    end += c.length;
    if (is_newline(text[last])) after_newline = end;
  }
  if (newlines_end_piece && after_newline) return after_newline;
  return end == text.size() || last == begin ? end : last;
}

size_t Splitter::gpt2_end(std::string_view text, size_t begin) const {
  if (const size_t length = contraction(text, begin, false)) return begin + length;
  Char c = char_at(text, begin);
  size_t at = begin + c.length;
  if (text[begin] == ' ' && at < text.size()) {
    c = char_at(text, at);
    if (c.type != CharClass::space) at += c.length;
  }
  return c.type == CharClass::space ? blank_end(text, begin, false) : run_end(text, at, c.type);
}

size_t Splitter::llama3_end(std::string_view text, size_t begin, int max_digits) const {
  if (const size_t length = contraction(text, begin, true)) return begin + length;
  const Char c = char_at(text, begin);
  size_t at = begin + c.length;
  if (c.type == CharClass::letter) return run_end(text, at, CharClass::letter);
  if (c.type == CharClass::number) {
    for (int digits = 1; digits < max_digits && is_at(text, at, CharClass::number); ++digits)
      at += char_at(text, at).length;
    return at;
  }
  if (!is_newline(text[begin]) && is_at(text, at, CharClass::letter)) return run_end(text, at, CharClass::letter);
  if (c.type == CharClass::other || (text[begin] == ' ' && is_at(text, at, CharClass::other))) {
    at = run_end(text, at, CharClass::other);
    while (at < text.size() && is_newline(text[at])) ++at;
    return at;
  }
  return blank_end(text, begin, true);
}

size_t Splitter::bloom_end(std::string_view text, size_t begin) const {
  const auto in_word = [&](size_t at) {
    if (at >= text.size()) return false;
    const Char c = char_at(text, at);
    return c.type != CharClass::space && !is_bloom_mark(c.code);
  };
  const auto begins_word = [&](size_t at) { return in_word(at) || (text[at] == ' ' && in_word(at + 1)); };
  size_t at = begin;
  if (begins_word(begin)) {
    do at += char_at(text, at).length;
    while (in_word(at));
  } else {
    do at += char_at(text, at).length;
    while (at < text.size() && !begins_word(at));
  }
  return at;
}

size_t Splitter::digits_end(std::string_view text, size_t begin, bool single) const {
  Char c = char_at(text, begin);
  const bool number = c.type == CharClass::number;
  size_t at = begin + c.length;
  if (number && single) return at;
  while (at < text.size()) {
    c = char_at(text, at);
    if ((c.type == CharClass::number) != number) break;
    at += c.length;
  }
  return at;
}

size_t Splitter::words_end(std::string_view text, size_t begin, bool punctuation_apart) const {
  const auto is_mark = [&](const Char& c) {
    return punctuation_apart && c.type == CharClass::other && is_punctuation(c.code);
  };
  Char c = char_at(text, begin);
  size_t at = begin + c.length;
  if (is_mark(c)) return at;
  const bool space = c.type == CharClass::space;
  while (at < text.size()) {
    c = char_at(text, at);
    if ((c.type == CharClass::space) != space || is_mark(c)) break;
    at += c.length;
  }
  return at;
}

size_t Splitter::piece_end(std::string_view text, size_t begin) const {
  switch (rule_) {
    case SplitRule::gpt2:
      return gpt2_end(text, begin);
    case SplitRule::llama3:
      return llama3_end(text, begin, 3);
    case SplitRule::qwen2:
      return llama3_end(text, begin, 1);
    case SplitRule::bloom:
      return bloom_end(text, begin);
    case SplitRule::digit:
      return digits_end(text, begin, true);
    case SplitRule::digits:
      return digits_end(text, begin, false);
    case SplitRule::bert:
      return words_end(text, begin, true);
    case SplitRule::words:
      return words_end(text, begin, false);
  }
  return text.size();
}

}  // namespace mixtape
