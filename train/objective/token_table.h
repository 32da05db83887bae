// What masking and noising must know of the vocabulary, looked up once.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "train/data/tokenizer/special_tokens.h"

namespace mixtape {

class Tokenizer;

struct TokenTable {
  int32_t vocab_size = 0;
  SpecialTokens ids;
  // By token id.
  std::vector<uint8_t> is_special, begins_word, is_full_stop;
  std::vector<int32_t> ordinary;  // all ids that are not special

  bool special(int32_t token) const { return is_special[size_t(token)] != 0; }
};

TokenTable token_table(const Tokenizer& tokenizer);

}  // namespace mixtape
