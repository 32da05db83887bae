#include "train/data/tokenizer/wordpiece_trainer.h"

#include <algorithm>
#include <map>
#include <set>
#include <thread>
#include <unordered_set>

#include "core/base/error.h"
#include "core/base/utf8.h"
#include "train/data/tokenizer/pair_merger.h"
#include "train/data/tokenizer/pipeline_tokenizer.h"

namespace mixtape {
namespace {

constexpr std::string_view prefix = "##";

WordPieceTrainerOptions checked(WordPieceTrainerOptions options) {
  std::vector<std::string> special = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"};
  for (const std::string& token : options.special_tokens) {
    if (!is_utf8(token) || token.size() < 2 || token.find_first_of("\r\n") != std::string::npos)
      throw ConfigError("special token '{}': expected at least two characters of UTF-8 in one line",
                        to_valid_utf8(token));
    if (std::ranges::find(special, token) != special.end())
      throw ConfigError("special token '{}' is given twice ([PAD], [UNK], [CLS], [SEP] and [MASK] are always there)",
                        token);
    special.push_back(token);
  }
  options.special_tokens = special;
  if (options.vocab_size <= static_cast<int64_t>(special.size()) || options.vocab_size > most_tokens)
    throw ConfigError("vocab size is {}, expected {} to {}: {} special tokens come first", options.vocab_size,
                      special.size() + 1, most_tokens, special.size());
  if (options.alphabet < 1) throw ConfigError("alphabet is {}, expected at least one character", options.alphabet);
  if (options.threads <= 0) options.threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  return options;
}

// The characters of a word as tokens: the first as it is, the others behind ##.
std::vector<std::string> pieces_of(std::string_view word) {
  std::vector<std::string> pieces;
  for (size_t at = 0; at < word.size();) {
    const std::string_view character = word.substr(at, utf8_char(word, at).length);
    pieces.push_back(std::string(at == 0 ? "" : prefix).append(character));
    at += character.size();
  }
  return pieces;
}

using Alphabet = std::unordered_set<std::string>;

// The most frequent characters; of equally frequent ones those that come first in Unicode.
Alphabet alphabet_of(const WordCounts& counts, size_t most) {
  std::map<std::string, int64_t> frequency;
  counts.for_each([&](std::string_view word, int64_t count) {
    for (size_t at = 0; at < word.size();) {
      const std::string_view character = word.substr(at, utf8_char(word, at).length);
      frequency[std::string(character)] += count;
      at += character.size();
    }
  });
  std::vector<std::pair<std::string, int64_t>> order(frequency.begin(), frequency.end());
  std::ranges::stable_sort(order, [](const auto& a, const auto& b) { return a.second > b.second; });
  Alphabet alphabet;
  for (size_t i = 0; i < std::min(order.size(), most); ++i) alphabet.insert(order[i].first);
  return alphabet;
}

struct Word {
  std::vector<std::string> pieces;
  int64_t count;
};

// The words that the tokenizer will be able to spell: of known characters, and not too long.
std::vector<Word> usable_words(const WordCounts& counts, const Alphabet& alphabet) {
  std::vector<Word> words;
  counts.for_each([&](std::string_view text, int64_t count) {
    Word word{pieces_of(text), count};
    const auto known = [&](const std::string& piece) {
      return alphabet.contains(&piece == word.pieces.data() ? piece : piece.substr(prefix.size()));
    };
    if (word.pieces.size() <= static_cast<size_t>(WordPieceRules{}.longest_word) &&
        std::ranges::all_of(word.pieces, known))
      words.push_back(std::move(word));
  });
  return words;
}

}  // namespace

WordPieceTrainer::WordPieceTrainer(WordPieceTrainerOptions options)
    : options_(checked(std::move(options))),
      normalizer_{.lowercase = options_.lowercase},
      counter_({SplitRule::bert}, options_.threads, {normalizer_}) {}

void WordPieceTrainer::add(std::string text) { counter_.add(std::move(text)); }

std::unique_ptr<Tokenizer> WordPieceTrainer::train() {
  const WordCounts counts = counter_.finish();
  const std::vector<Word> words = usable_words(counts, alphabet_of(counts, static_cast<size_t>(options_.alphabet)));
  if (words.empty()) throw DataError("no text to train a tokenizer on: all documents are empty");

  std::set<std::string> first_tokens;
  for (const Word& word : words) first_tokens.insert(word.pieces.begin(), word.pieces.end());
  std::vector<std::string> tokens = options_.special_tokens;
  tokens.insert(tokens.end(), first_tokens.begin(), first_tokens.end());
  if (tokens.size() > static_cast<size_t>(options_.vocab_size))
    throw DataError(
        "the text needs {} tokens for its characters, but the vocabulary has {}; choose a greater "
        "--vocab-size or a smaller --alphabet",
        tokens.size(), options_.vocab_size);
  std::unordered_map<std::string, int32_t> id_of;
  for (size_t id = 0; id < tokens.size(); ++id) id_of.emplace(tokens[id], static_cast<int32_t>(id));

  PairMerger merger(std::move(tokens), static_cast<int32_t>(options_.special_tokens.size()), std::string(prefix));
  std::vector<int32_t> symbols;
  for (const Word& word : words) {
    symbols.clear();
    for (const std::string& piece : word.pieces) symbols.push_back(id_of.at(piece));
    merger.add_word(symbols, word.count);
  }
  while (merger.size() < options_.vocab_size && merger.step(options_.min_frequency))
    if (options_.progress && merger.size() % 64 == 0) options_.progress(merger.size());

  TokenizerDefinition definition = bert_definition(merger.take_tokens(), normalizer_, "trained tokenizer");
  for (size_t id = 5; id < options_.special_tokens.size(); ++id)
    definition.added.push_back({.id = static_cast<int32_t>(id), .content = options_.special_tokens[id]});
  find_roles(definition);
  return std::make_unique<PipelineTokenizer>(std::move(definition), "trained tokenizer");
}

}  // namespace mixtape
