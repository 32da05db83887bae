// Masked LM (BERT): some tokens are hidden, and the model predicts what they were.
//
// A row is cls text sep (train/data/dataset.h, Framing::enclosed). Of its n tokens, special ones included, `count` are
// chosen among those that are not special, and are the row's only targets:
//
//   roberta    count = floor(rate n + u), u uniform in [0, 1)                (fairseq's mask_tokens_dataset.py)
//   bert       count = min(max_predictions, max(1, round(rate n))), ties to even  (create_pretraining_data.py)
//   bernoulli  each token or word by itself with probability rate            (transformers' data collator)
//
// A chosen token shows [MASK] with probability 0.8, a random token with 0.1, itself with 0.1. Random tokens are of the
// whole vocabulary, under the roberta rule of those that are not special. Units: `token`; `whole_word`, words in random
// order, where one that would exceed the count is passed over, never cut, and each token decides what it shows; `span`
// (SpanBERT, arXiv 1907.10529), runs of 1 to 10 words, geometric with p = 0.2, cut at the count, and all tokens of a
// run show the same kind. fairseq masks <s> and </s> too; here a special token never is.
//
// The choice is a function of (seed, sample index), so each epoch has its own and a resume repeats none.
#pragma once

#include "train/config/objective.h"
#include "train/objective/draws.h"
#include "train/objective/objective.h"
#include "train/objective/row.h"
#include "train/objective/token_table.h"

namespace mixtape {

class MaskedLm final : public TextObjective {
 public:
  // `data`: Framing::enclosed. Throws ConfigError if the tokenizer has no mask token.
  MaskedLm(std::unique_ptr<const Dataset> data, const ObjectiveConfig& config, TokenTable table, bool document_mask,
           uint64_t seed);

  RowShape shape() const override;

 private:
  void append(const Sample& sample, Batch& batch) const override;

  ObjectiveConfig config_;
  TokenTable table_;
  bool document_mask_;
  uint64_t seed_;
};

// Tokens that the rules predict of a row of `length`; `draw` in [0, 1).
int32_t bert_count(int32_t length, double rate, std::optional<int64_t> max_predictions);
int32_t roberta_count(int32_t length, double rate, double draw);
// The most that a row can have. For bernoulli it is six standard deviations above the mean (twelve for whole words); a
// row of more, one in a billion, predicts only so many.
int32_t most_predictions(int32_t length, const ObjectiveConfig& config);

// What can be masked: tokens, or words of one token or more. Special tokens are in none and end a word.
std::vector<TokenRange> maskable(std::span<const int32_t> tokens, const TokenTable& table, bool whole_words);

// Words in the order given until `count` tokens are taken; one that would exceed it is passed over. In text order.
std::vector<TokenRange> take_words(std::span<const TokenRange> words, std::span<const int32_t> order, int32_t count);

// Runs of whole words that begin at words in the order given, until `count` tokens are taken; the last run is cut.
std::vector<TokenRange> take_spans(std::span<const TokenRange> words, std::span<const int32_t> order, int32_t count,
                                   Draws& draws);

}  // namespace mixtape
