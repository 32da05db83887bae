#include "train/objective/classify.h"

#include "core/base/error.h"

namespace mixtape {

Classify::Classify(const Tokenizer& tokenizer, std::vector<std::string> labels, int32_t length)
    : frame_(tokenizer), labels_(std::move(labels)), length_(length) {
  if (frame_.before().empty())
    throw ConfigError(
        "objective.name: classify reads the first token of a text, which the tokenizer does not add; name cls_token "
        "and "
        "sep_token in its tokenizer_config.json");
}

Example Classify::encode(const Record& record) const {
  const std::string& text = record.text({"text", "sentence", "sentence1", "premise"});
  const std::string* second = record.optional_text({"text_pair", "sentence2", "hypothesis"});
  Example example = second ? frame_.pair(text, *second, length_) : frame_.one(text, length_);
  example.targets.assign(example.tokens.size(), -1);
  example.targets.front() = record.label({"label"}, labels_);
  return example;
}

}  // namespace mixtape
