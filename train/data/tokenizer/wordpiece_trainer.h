// Training of WordPiece as BERT uses it: words by BertNormalizer and BertPreTokenizer, characters merged by frequency
// as in BPE (which is what Hugging Face's WordPieceTrainer does; Google's own was never published).
//
// The vocabulary is the special tokens, the characters in code-point order (as word beginnings and as ## pieces, where
// they occur), and the merges. It depends on the counts of words alone.
//
//   WordPieceTrainer trainer({.vocab_size = 30522});
//   for (...) trainer.add(text);
//   trainer.train()->save("vocab.txt");
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "train/data/tokenizer/normalizer.h"
#include "train/data/tokenizer/tokenizer_trainer.h"
#include "train/data/tokenizer/word_counts.h"

namespace mixtape {

struct WordPieceTrainerOptions {
  int32_t vocab_size = 30522;                    // all of it
  int64_t min_frequency = 2;                     // a pair that occurs less often is not merged
  bool lowercase = true;                         // and without accents
  int32_t alphabet = 1000;                       // characters that become tokens; words with rarer ones are [UNK]
  std::vector<std::string> special_tokens = {};  // after [PAD], [UNK], [CLS], [SEP], [MASK], which are ids 0 to 4
  int threads = 0;                               // 0: as many as the machine has
  std::function<void(int32_t tokens)> progress = nullptr;
};

class WordPieceTrainer final : public TokenizerTrainer {
 public:
  // Throws ConfigError for a vocabulary too small for the special tokens, or special tokens that clash.
  explicit WordPieceTrainer(WordPieceTrainerOptions options);

  void add(std::string text) override;
  std::unique_ptr<Tokenizer> train() override;

 private:
  WordPieceTrainerOptions options_;
  BertNormalizer normalizer_;
  WordCounter counter_;
};

}  // namespace mixtape
