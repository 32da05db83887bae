#include "train/objective/instruct.h"

#include <algorithm>

#include "core/base/error.h"
#include "train/data/tokenizer/tokenizer.h"

namespace mixtape {

Instruct::Instruct(const Tokenizer& tokenizer, int32_t length)
    : tokenizer_(tokenizer), frame_(tokenizer), length_(length) {
  if (!tokenizer.eos_id())
    throw ConfigError(
        "objective.name: instruct needs a token that ends responses, which the tokenizer lacks; name eos_token in its "
        "tokenizer_config.json");
}

Example Instruct::encode(const Record& record) const {
  std::vector<int32_t> tokens = frame_.before();
  tokenizer_.encode(record.text({"prompt", "instruction"}), tokens);
  // An empty prompt begins as generation begins a document.
  if (tokens.empty()) tokens.push_back(*tokenizer_.eos_id());
  const size_t prompt = tokens.size();
  tokenizer_.encode(record.text({"response", "completion", "output"}), tokens);
  tokens.push_back(*tokenizer_.eos_id());

  Example example{.cut = tokens.size() > size_t(length_) + 1};
  if (example.cut) tokens.resize(size_t(length_) + 1);
  example.tokens.assign(tokens.begin(), tokens.end() - 1);
  example.targets.assign(tokens.begin() + 1, tokens.end());
  std::fill_n(example.targets.begin(), std::min(prompt - 1, example.targets.size()), -1);
  return example;
}

}  // namespace mixtape
