#include "train/data/tokenizer/bpe_trainer.h"

#include <algorithm>
#include <thread>

#include "core/base/error.h"
#include "core/base/utf8.h"
#include "train/data/tokenizer/byte_level.h"
#include "train/data/tokenizer/pair_merger.h"
#include "train/data/tokenizer/pipeline_tokenizer.h"

namespace mixtape {
namespace {

std::vector<SplitRule> rules_of(const BpeTrainerOptions& options) {
  if (options.split_digits) return {SplitRule::digit, SplitRule::gpt2};
  return {SplitRule::gpt2};
}

BpeTrainerOptions checked(BpeTrainerOptions options) {
  const auto least = static_cast<int64_t>(256 + options.special_tokens.size());
  if (options.vocab_size < least || options.vocab_size > most_tokens)
    throw ConfigError("vocab size is {}, expected {} to {}: 256 bytes and {} special tokens come first",
                      options.vocab_size, least, most_tokens, options.special_tokens.size());
  for (size_t i = 0; i < options.special_tokens.size(); ++i) {
    const std::string& token = options.special_tokens[i];
    if (!is_utf8(token) || token.size() < 2 || (from_byte_level(token) && from_byte_level(token)->size() < 2))
      throw ConfigError("special token '{}': expected at least two characters of UTF-8", to_valid_utf8(token));
    if (std::ranges::count(options.special_tokens, token) > 1)
      throw ConfigError("special token '{}' is given twice", token);
  }
  for (const char* token : {"<s>", "</s>"})
    if (options.encloses && std::ranges::count(options.special_tokens, token) == 0)
      throw ConfigError("texts cannot be enclosed without the special token {}", token);
  if (options.threads <= 0) options.threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  return options;
}

}  // namespace

BpeTrainer::BpeTrainer(BpeTrainerOptions options)
    : options_(checked(std::move(options))), counter_(rules_of(options_), options_.threads) {}

void BpeTrainer::add(std::string text) { counter_.add(std::move(text)); }

std::unique_ptr<Tokenizer> BpeTrainer::train() {
  const WordCounts counts = counter_.finish();
  if (counts.size() == 0) throw DataError("no text to train a tokenizer on: all documents are empty");

  TokenizerDefinition definition;
  std::vector<std::string> tokens = options_.special_tokens;
  for (size_t id = 0; id < tokens.size(); ++id)
    definition.added.push_back({.id = static_cast<int32_t>(id), .content = tokens[id]});
  // Bytes in the order of their characters, as Hugging Face sorts its alphabet.
  std::vector<std::pair<uint32_t, int>> alphabet;
  for (int byte = 0; byte < 256; ++byte) alphabet.emplace_back(byte_level_alphabet()[byte], byte);
  std::ranges::sort(alphabet);
  std::vector<int32_t> id_of_byte(256);
  for (const auto& [character, byte] : alphabet) {
    id_of_byte[byte] = static_cast<int32_t>(tokens.size());
    tokens.push_back(to_byte_level(std::string(1, static_cast<char>(byte))));
  }
  if (options_.split_digits) definition.pre_tokenizer.push_back(SplitRule::digit);
  definition.pre_tokenizer.push_back(ByteLevel{});

  PairMerger merger(std::move(tokens), static_cast<int32_t>(options_.special_tokens.size()));
  std::vector<int32_t> symbols;
  counts.for_each([&](std::string_view word, int64_t count) {
    symbols.clear();
    for (const char c : word) symbols.push_back(id_of_byte[static_cast<uint8_t>(c)]);
    merger.add_word(symbols, count);
  });
  while (merger.size() < options_.vocab_size && merger.step(options_.min_frequency))
    if (options_.progress && merger.size() % 64 == 0) options_.progress(merger.size());
  definition.tokens = merger.take_tokens();
  definition.in_model.assign(definition.tokens.size(), true);
  definition.model = BpeRules{.merges = merger.take_merges()};
  find_roles(definition);
  if (options_.encloses) {
    const auto id_of = [&](const char* token) {
      return static_cast<int32_t>(std::ranges::find(options_.special_tokens, token) - options_.special_tokens.begin());
    };
    definition.text_template = TextTemplate::roberta(id_of("<s>"), id_of("</s>"));
  }
  return std::make_unique<PipelineTokenizer>(std::move(definition), "trained tokenizer");
}

}  // namespace mixtape
