// Pairs of texts for an encoder-decoder: translation, summaries, answers. The encoder reads the source, the decoder
// writes the target; the loss is on the target, its end included.
//
//   {"source": "translate English to German: Good morning", "target": "Guten Morgen"}
//
// Both are enclosed as the tokenizer's template has it: T5 `text </s>`, BART `<s> text </s>`. Also accepted: "input",
// "target"; "document", "summary".
#pragma once

#include "train/objective/fine_tuning.h"
#include "train/objective/text_frame.h"

namespace mixtape {

class Seq2Seq final : public Task {
 public:
  // Sources have at most `length` tokens, targets `target_length`.
  Seq2Seq(const Tokenizer& tokenizer, int32_t length, int32_t target_length);

  Example encode(const Record& record) const override;
  std::unique_ptr<Scorer> scorer() const override { return text_scorer(); }

 private:
  TextFrame frame_;
  int32_t length_, target_length_;
};

}  // namespace mixtape
