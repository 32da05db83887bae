// Training of byte-level BPE (Sennrich et al. 2016, on bytes as GPT-2).
//
// Words (pieces of the GPT-2 pattern) are counted on all threads; then the most frequent pair of neighbours becomes a
// token, again and again. Of pairs with the same count the one with the smaller ids wins, so the result depends on the
// counts alone: not on threads, nor on the order of texts. It is that of Hugging Face's BpeTrainer with the ByteLevel
// alphabet, but for one rule: no merge ever spells a special token, so plain text cannot become one.
//
//   BpeTrainer trainer({.vocab_size = 8192});
//   for (...) trainer.add(text);
//   trainer.train()->save("tokenizer.json");
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "train/data/tokenizer/tokenizer_trainer.h"
#include "train/data/tokenizer/word_counts.h"

namespace mixtape {

struct BpeTrainerOptions {
  int32_t vocab_size = 8192;                                    // all of it: special tokens, the 256 bytes, merges
  int64_t min_frequency = 2;                                    // a pair that occurs less often is not merged
  bool split_digits = false;                                    // every digit a token of its own
  std::vector<std::string> special_tokens = {"<|endoftext|>"};  // ids 0, 1, ...; the first <|endoftext|> or </s> is eos
  bool encloses = false;                                        // texts stand between <s> and </s>, as RoBERTa has it
  int threads = 0;                                              // 0: as many as the machine has
  std::function<void(int32_t tokens)> progress = nullptr;       // called now and then with the tokens made so far
};

class BpeTrainer final : public TokenizerTrainer {
 public:
  // Throws ConfigError for a vocabulary that cannot hold bytes and special tokens, or special tokens that clash.
  explicit BpeTrainer(BpeTrainerOptions options);

  void add(std::string text) override;
  std::unique_ptr<Tokenizer> train() override;

 private:
  BpeTrainerOptions options_;
  WordCounter counter_;
};

}  // namespace mixtape
