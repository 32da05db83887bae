// Training of unigram tokenizers in T5's layout, by Google's SentencePiece library: <pad>, </s>, <unk>, the pieces, and
// sentinels <extra_id_N> ... <extra_id_0> at the end.
//
//   UnigramTrainer trainer({.vocab_size = 32100, .sentinels = 100});
//   for (...) trainer.add(text);
//   trainer.train()->save("tokenizer.json");
#pragma once

#include <cstdint>
#include <vector>

#include "train/data/tokenizer/tokenizer_trainer.h"

namespace mixtape {

struct UnigramTrainerOptions {
  int32_t vocab_size = 32100;          // all of it
  int32_t sentinels = 0;               // T5 has 100
  double character_coverage = 0.9995;  // share of the text's characters that have a token
  bool split_digits = false;           // every digit a token of its own
  int64_t lines = 2'000'000;           // of the text that are used, drawn evenly; the library holds them in memory
  bool as_model = false;               // train() gives a SentencePiece .model in place of a tokenizer.json
  int threads = 0;                     // 0: as many as the machine has
};

class UnigramTrainer final : public TokenizerTrainer {
 public:
  // Throws ConfigError for a vocabulary that cannot hold the sentinels and a few pieces.
  explicit UnigramTrainer(UnigramTrainerOptions options);

  void add(std::string text) override;
  std::unique_ptr<Tokenizer> train() override;

 private:
  void add_line(std::string_view line);
  std::string train_model(int32_t pieces) const;

  UnigramTrainerOptions options_;
  std::vector<std::string> lines_;
  uint64_t seen_ = 0;
};

}  // namespace mixtape
