// Prompts and responses for a decoder: the loss is on the response and the token that ends it, not on the prompt.
//
//   {"prompt": "Question: What is the capital of France?\nAnswer:", "response": " Paris"}
//
// The model reads the two one after the other as they stand, so blanks and line breaks between them belong to the data.
// Each is tokenised by itself, which is what generation does with a prompt. Where the tokenizer's template begins texts
// with a token (LLaMA's <s>), examples begin with it. Also accepted: "instruction"; "completion", "output".
#pragma once

#include "train/objective/fine_tuning.h"
#include "train/objective/text_frame.h"

namespace mixtape {

class Instruct final : public Task {
 public:
  // The model reads at most `length` tokens of an example.
  Instruct(const Tokenizer& tokenizer, int32_t length);

  Example encode(const Record& record) const override;
  std::unique_ptr<Scorer> scorer() const override { return text_scorer(); }

 private:
  const Tokenizer& tokenizer_;
  TextFrame frame_;
  int32_t length_;
};

}  // namespace mixtape
