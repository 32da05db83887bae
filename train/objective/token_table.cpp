#include "train/objective/token_table.h"

#include "train/data/tokenizer/tokenizer.h"

namespace mixtape {

TokenTable token_table(const Tokenizer& tokenizer) {
  TokenTable table{.vocab_size = tokenizer.vocab_size(), .ids = tokenizer.special_tokens()};
  for (int32_t id = 0; id < table.vocab_size; ++id) {
    table.is_special.push_back(tokenizer.is_special(id));
    table.begins_word.push_back(tokenizer.begins_word(id));
    const std::string text = tokenizer.token_bytes(id);
    table.is_full_stop.push_back(text == "." || text == " .");
    if (!tokenizer.is_special(id)) table.ordinary.push_back(id);
  }
  return table;
}

}  // namespace mixtape
