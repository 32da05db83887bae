// What a tokenizer's template puts around one text and around a pair, learnt from the tokenizer itself, so that texts
// can be cut to a length before it is put there.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "train/data/example.h"

namespace mixtape {

class Tokenizer;

class TextFrame {
 public:
  // Where the template is empty: cls text sep, and cls text sep text sep, if the tokenizer has both tokens.
  explicit TextFrame(const Tokenizer& tokenizer);

  // One text, or a pair, in at most `most` tokens: what is too long loses its end, of a pair the longer text first, as
  // in transformers' truncation "longest_first". Literals of special tokens become these, as in transformers.
  Example one(std::string_view text, int32_t most) const;
  Example pair(std::string_view first, std::string_view second, int32_t most) const;
  // The same around tokens.
  std::vector<int32_t> enclosed(std::span<const int32_t> tokens) const;

  const std::vector<int32_t>& before() const { return before_; }
  const std::vector<int32_t>& after() const { return after_; }

 private:
  void find_single();
  void find_pair();

  const Tokenizer& tokenizer_;
  std::vector<int32_t> before_, after_;                          // around one text
  std::vector<int32_t> pair_before_, between_, pair_after_;      // around two
  int32_t between_type_ = 0, second_type_ = 0, after_type_ = 0;  // token types; the first text's is 0
};

}  // namespace mixtape
