// Training a tokenizer on files, with its messages: for `tokenizer train` and `data prepare --new-tokenizer`.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace mixtape {

// What belongs to one algorithm stays unset for the others, so that no option is taken and then ignored.
struct TokenizerTraining {
  std::vector<std::string> inputs;
  std::string output = "tokenizer.json";
  std::string key = "text";
  std::string like;  // a family; sets the rest to what that has
  std::string type = "bpe";
  std::optional<int32_t> vocab_size, alphabet, sentinels;
  std::optional<int64_t> min_frequency, lines;
  std::optional<double> character_coverage;
  std::vector<std::string> special;
  bool split_digits = false, cased = false, encloses = false;
  int threads = 0;
};

// The kind of tokenizer that a family has: gpt2 (byte-level BPE; OPT's and BLOOM's, too), bert (WordPiece), roberta and
// bart (byte-level BPE with <s>, <mask> and so on), t5 (unigram with 100 sentinels).
std::vector<std::string> tokenizer_families();

// Throws ConfigError for options that do not belong to the type, or an output of another kind.
void train_tokenizer(TokenizerTraining options);

}  // namespace mixtape
