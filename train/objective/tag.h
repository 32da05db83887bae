// Tagging of words by an encoder: names, parts of speech.
//
//   {"tokens": ["Ada", "lives", "in", "London"], "tags": ["B-PER", "O", "O", "B-LOC"]}
//
// Each word is tokenised by itself, with a blank before it, and its tag is predicted at the first of its tokens; the
// others have no target. (transformers: is_split_into_words=True, and for byte-level BPE add_prefix_space=True.) `tags`
// are of objective.labels, or their numbers. Also accepted: "words"; "ner_tags", "pos_tags", "labels".
#pragma once

#include "train/objective/fine_tuning.h"
#include "train/objective/text_frame.h"

namespace mixtape {

class Tag final : public Task {
 public:
  // Examples have at most `length` tokens; of a longer one the last words are left out.
  Tag(const Tokenizer& tokenizer, std::vector<std::string> labels, int32_t length);

  Example encode(const Record& record) const override;
  std::unique_ptr<Scorer> scorer() const override { return label_scorer(labels_, true); }

 private:
  const Tokenizer& tokenizer_;
  TextFrame frame_;
  std::vector<std::string> labels_;
  int32_t length_;
};

}  // namespace mixtape
