// Cutting text into the pieces that a model works within. The published patterns are regular expressions; here each is
// a hand-written scanner that gives the same pieces at the speed of a scan.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "core/base/utf8.h"
#include "train/data/tokenizer/char_class.h"

namespace mixtape {

enum class SplitRule : uint8_t {
  gpt2,    // 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
  llama3,  // (?i:'s|...)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
  qwen2,   // the same with \p{N} alone: one digit a piece
  bloom,   // words and the punctuation between them: ` ?[^(\s|[.,!?…。，、।۔،])]+`
  digit,   // every number character by itself, what lies between in one piece
  digits,  // runs of number characters, what lies between in one piece
  bert,    // words and single punctuation characters (BertPreTokenizer); white space goes
  words,   // what lies between white space (WhitespaceSplit); white space goes
};

// The rule for a regular expression as it stands in a tokenizer.json, and back; rules without a pattern give nothing.
std::optional<SplitRule> split_rule_of_pattern(std::string_view pattern);
std::string_view pattern_of_split_rule(SplitRule rule);

class Splitter {
 public:
  explicit Splitter(SplitRule rule)
      : rule_(rule), drops_space_(rule == SplitRule::bert || rule == SplitRule::words), classes_(char_class_table()) {}

  // Where the piece ends that begins at `begin` < text.size(). Pieces cover the text without gaps. Bytes that are not
  // UTF-8 count as `other`.
  size_t piece_end(std::string_view text, size_t begin) const;

  // Whether the piece that begins at `begin` is white space that the rule removes.
  bool drops(std::string_view text, size_t begin) const {
    return drops_space_ && char_at(text, begin).type == CharClass::space;
  }

 private:
  struct Char {
    CharClass type;
    uint32_t code;
    uint32_t length;
  };
  Char char_at(std::string_view text, size_t at) const {
    const auto byte = static_cast<uint8_t>(text[at]);
    if (byte < 0x80) return {classes_[byte], byte, 1};
    const Utf8Char c = utf8_char(text, at);
    return {c.valid ? char_class(classes_, c.code) : CharClass::other, c.code, c.length};
  }
  bool is_at(std::string_view text, size_t at, CharClass type) const;
  size_t run_end(std::string_view text, size_t at, CharClass type) const;
  size_t blank_end(std::string_view text, size_t begin, bool newlines_end_piece) const;
  size_t gpt2_end(std::string_view text, size_t begin) const;
  size_t llama3_end(std::string_view text, size_t begin, int max_digits) const;
  size_t bloom_end(std::string_view text, size_t begin) const;
  size_t digits_end(std::string_view text, size_t begin, bool single) const;
  size_t words_end(std::string_view text, size_t begin, bool punctuation_apart) const;

  SplitRule rule_;
  bool drops_space_;
  const std::array<CharClass, 0x10000>& classes_;
};

}  // namespace mixtape
