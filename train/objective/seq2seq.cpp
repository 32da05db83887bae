#include "train/objective/seq2seq.h"

#include "core/base/error.h"

namespace mixtape {

Seq2Seq::Seq2Seq(const Tokenizer& tokenizer, int32_t length, int32_t target_length)
    : frame_(tokenizer), length_(length), target_length_(target_length) {
  if (frame_.after().empty())
    throw ConfigError(
        "objective.name: seq2seq needs a tokenizer whose template ends texts, as T5's and BART's do; otherwise the "
        "decoder would not learn to end");
}

Example Seq2Seq::encode(const Record& record) const {
  Example example = frame_.one(record.text({"source", "input", "document"}), length_);
  Example target = frame_.one(record.text({"target", "output", "summary"}), target_length_);
  example.targets = std::move(target.tokens);
  example.cut |= target.cut;
  return example;
}

}  // namespace mixtape
