#include "train/objective/tag.h"

#include <fmt/format.h>

#include "train/data/tokenizer/tokenizer.h"

namespace mixtape {

Tag::Tag(const Tokenizer& tokenizer, std::vector<std::string> labels, int32_t length)
    : tokenizer_(tokenizer), frame_(tokenizer), labels_(std::move(labels)), length_(length) {}

Example Tag::encode(const Record& record) const {
  const std::vector<std::string> words = record.texts({"tokens", "words"});
  const std::vector<int32_t> tags = record.label_list({"tags", "ner_tags", "pos_tags", "labels"}, labels_);
  if (words.size() != tags.size())
    record.fail(fmt::format("{} tokens and {} tags, expected one tag for each token", words.size(), tags.size()));
  const size_t frame = frame_.before().size() + frame_.after().size();
  const size_t room = size_t(length_) > frame ? size_t(length_) - frame : 0;
  Example example;
  std::vector<int32_t> tokens, targets(frame_.before().size(), -1);
  for (size_t i = 0; i < words.size(); ++i) {
    const std::vector<int32_t> word = tokenizer_.encode(" " + words[i]);
    example.cut = tokens.size() + word.size() > room;
    if (example.cut) break;
    if (word.empty()) continue;
    tokens.insert(tokens.end(), word.begin(), word.end());
    targets.push_back(tags[i]);
    targets.resize(targets.size() + word.size() - 1, -1);
  }
  example.tokens = frame_.enclosed(tokens);
  example.targets = std::move(targets);
  example.targets.resize(example.tokens.size(), -1);
  return example;
}

}  // namespace mixtape
