// Classification of texts and pairs of texts by an encoder: the label is predicted at the first token, cls.
//
//   {"text": "What a film!", "label": "positive"}
//   {"text": "It rains.", "text_pair": "It is wet outside.", "label": "entailment"}
//
// `label` is one of objective.labels, or its number from 0. Also accepted: "sentence", "sentence1" and "sentence2",
// "premise" and "hypothesis".
#pragma once

#include "train/objective/fine_tuning.h"
#include "train/objective/text_frame.h"

namespace mixtape {

class Classify final : public Task {
 public:
  // Examples have at most `length` tokens. Throws ConfigError if the tokenizer does not begin texts with a token of its
  // own.
  Classify(const Tokenizer& tokenizer, std::vector<std::string> labels, int32_t length);

  Example encode(const Record& record) const override;
  std::unique_ptr<Scorer> scorer() const override { return label_scorer(labels_, false); }

 private:
  TextFrame frame_;
  std::vector<std::string> labels_;
  int32_t length_;
};

}  // namespace mixtape
