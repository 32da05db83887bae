// Denoising (BART, arXiv 1910.13461): the encoder reads a corrupted document, the decoder writes the clean one.
//
// Each document of a row, <s> text </s> (train/data/dataset.h, Framing::enclosed), is corrupted by itself, in this
// order (fairseq's denoising_dataset.py); the defaults are those of the released models:
//
//   permute_sentences 1    ceil(p n) of the n sentences change places among themselves. A sentence ends with a full
//   stop
//                          that does not follow one, and at the end of the text.
//   infill_rate 0.3        ceil(rate n) of the n words: lengths of spans are drawn from Poisson(poisson_lambda) until
//   they
//                          reach that budget, the last one cut to it; each span begins at a word of its own, runs over
//                          so many words or to the end, and becomes one [MASK]. Spans that meet become one. A span of
//                          length 0 is a mask put in anywhere.
//   delete_rate 0          ceil(rate n) of the n tokens are left out (not in the released code; the paper's deletion).
//   insert_rate 0          ceil(rate n) masks are put in.
//   rotate_rate 0          with this probability the text begins at a random token and what stood before it follows.
//
// A mask is a random token that is not special with probability random_mask_share (of masks put in: ceil(share n) of
// n). fairseq draws random tokens from the whole vocabulary but <s>; that would put ends of documents into their
// middle.
//
// Targets are the clean row, seq_length tokens without padding; the decoder reads </s> and then the targets but the
// last. The corrupted row is padded to seq_length. Masks put in that would exceed it are left out.
#pragma once

#include "train/config/objective.h"
#include "train/objective/draws.h"
#include "train/objective/objective.h"
#include "train/objective/row.h"
#include "train/objective/token_table.h"

namespace mixtape {

class Denoising final : public TextObjective {
 public:
  // `data`: Framing::enclosed. Throws ConfigError if the tokenizer has no mask token.
  Denoising(std::unique_ptr<const Dataset> data, const ObjectiveConfig& config, TokenTable table, bool document_mask,
            uint64_t seed);

  RowShape shape() const override {
    const int32_t length = data().seq_length();
    return {.length = length, .decoder_length = length, .most_targets = length};
  }

 private:
  void append(const Sample& sample, Batch& batch) const override;

  ObjectiveConfig config_;
  TokenTable table_;
  bool document_mask_;
  uint64_t seed_;
  std::vector<double> span_lengths_;
};

// A document with <s> and </s>, corrupted; at most `room` tokens, which is at least its own number.
std::vector<int32_t> corrupted(std::span<const int32_t> document, const ObjectiveConfig& config,
                               const TokenTable& table, std::span<const double> span_lengths, int32_t room,
                               Draws& draws);

// Probabilities of 0, 1, 2, ..., cut where they fall below 1e-7 and normalised.
std::vector<double> poisson_table(double lambda);

// Sentences inside <s> ... </s>. One token after a final full stop belongs to none and stays, as in fairseq.
std::vector<TokenRange> sentences_of(std::span<const int32_t> document, const TokenTable& table);
std::vector<int32_t> permuted(std::span<const int32_t> document, std::span<const TokenRange> sentences,
                              std::span<const int32_t> order);

// Span lengths in words that sum to `budget`, zeros among them.
std::vector<int32_t> span_budget(int32_t budget, std::span<const double> span_lengths, Draws& draws);

// Each span becomes one token. Spans may meet or overlap: a token inside one is gone even if another begins there.
struct Infill {
  TokenRange span;
  int32_t replacement = 0;
};
std::vector<int32_t> infilled(std::span<const int32_t> document, std::span<const Infill> infills);

// Puts values[i] at position places[i] of the result; `places` ascend.
std::vector<int32_t> with_insertions(std::span<const int32_t> document, std::span<const int32_t> places,
                                     std::span<const int32_t> values);

}  // namespace mixtape
