#include "train/data/tokenizer/bpe_trainer.h"

#include <algorithm>
#include <queue>
#include <thread>
#include <unordered_map>

#include "core/base/error.h"
#include "core/base/utf8.h"
#include "train/data/tokenizer/bpe_tokenizer.h"
#include "train/data/tokenizer/byte_level.h"

namespace mixtape {
namespace {

constexpr int32_t most_tokens = 1 << 24;

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
  if (options.threads <= 0) options.threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  return options;
}

// Merging on counted words. A pair knows in how many places it stands and in which words; a merge rewrites those words
// and adjusts the counts of the pairs at its two sides.
class Merger {
 public:
  Merger(const WordCounts& counts, const std::vector<int32_t>& id_of_byte, BpeDefinition& definition)
      : definition_(definition) {
    for (size_t id = 0; id < definition.tokens.size(); ++id) id_of_[definition.tokens[id]] = static_cast<int32_t>(id);
    counts.for_each([&](std::string_view text, int64_t count) {
      words_.push_back({symbols_.size(), static_cast<uint32_t>(text.size()), count});
      for (const char c : text) symbols_.push_back(id_of_byte[static_cast<uint8_t>(c)]);
    });
    for (uint32_t word = 0; word < words_.size(); ++word) {
      const int32_t* s = &symbols_[words_[word].begin];
      for (uint32_t i = 0; i + 1 < words_[word].length; ++i) change(s[i], s[i + 1], words_[word].count, word);
    }
    offer_risen();
  }

  // Makes one merge; false if no pair occurs `min_frequency` times.
  bool step(int64_t min_frequency) {
    while (!candidates_.empty()) {
      const Candidate best = candidates_.top();
      candidates_.pop();
      Pair& pair = pairs_[best.pair];
      if (pair.count != best.count) {  // fell since it was offered; a rise was offered again
        if (pair.count > 0 && pair.count < best.count) candidates_.push({pair.count, pair.left, pair.right, best.pair});
        continue;
      }
      if (best.count < std::max<int64_t>(1, min_frequency)) return false;
      const auto [left, right] = std::pair(pair.left, pair.right);
      const std::vector<uint32_t> words = std::move(pair.words);
      pair.words.clear();
      pair.count = 0;
      const std::optional<int32_t> id = token_for(definition_.tokens[left] + definition_.tokens[right]);
      if (!id) continue;
      definition_.merges.emplace_back(left, right);
      for (const uint32_t word : words) merge_in(word, left, right, *id);
      offer_risen();
      return true;
    }
    return false;
  }

 private:
  struct Word {
    uint64_t begin;
    uint32_t length;
    int64_t count;
  };
  struct Pair {
    int32_t left, right;
    int64_t count = 0;
    bool risen = false;
    std::vector<uint32_t> words;  // may name words that have lost the pair, or one twice
  };
  struct Candidate {
    int64_t count;
    int32_t left, right;
    uint32_t pair;
    bool operator<(const Candidate& o) const {
      if (count != o.count) return count < o.count;
      return std::pair(left, right) > std::pair(o.left, o.right);
    }
  };

  // The token with this text: usually new; an older one where two ways lead to it; nothing if the text is special.
  std::optional<int32_t> token_for(const std::string& text) {
    const auto next = static_cast<int32_t>(definition_.tokens.size());
    const auto [found, is_new] = id_of_.emplace(text, next);
    const int32_t id = found->second;
    if (is_new) {
      definition_.tokens.push_back(text);
      definition_.in_model.push_back(true);
    } else if (std::ranges::any_of(definition_.added, [&](const AddedToken& t) { return t.id == id; })) {
      return std::nullopt;
    }
    return id;
  }

  void change(int32_t left, int32_t right, int64_t count, uint32_t word) {
    const uint64_t key = static_cast<uint64_t>(left) << 32 | static_cast<uint32_t>(right);
    const auto [found, is_new] = pair_of_.emplace(key, static_cast<uint32_t>(pairs_.size()));
    if (is_new) pairs_.push_back({left, right});
    Pair& pair = pairs_[found->second];
    pair.count += count;
    if (count < 0) return;
    if (pair.words.empty() || pair.words.back() != word) pair.words.push_back(word);
    if (!pair.risen) risen_.push_back(found->second);
    pair.risen = true;
  }

  void offer_risen() {
    for (const uint32_t index : risen_) {
      Pair& pair = pairs_[index];
      pair.risen = false;
      if (pair.count > 0) candidates_.push({pair.count, pair.left, pair.right, index});
    }
    risen_.clear();
  }

  void merge_in(uint32_t index, int32_t left, int32_t right, int32_t id) {
    Word& word = words_[index];
    int32_t* s = &symbols_[word.begin];
    uint32_t kept = 0;
    for (uint32_t i = 0; i < word.length; ++i) {
      if (i + 1 == word.length || s[i] != left || s[i + 1] != right) {
        s[kept++] = s[i];
        continue;
      }
      if (kept > 0) replace_pair({s[kept - 1], left}, {s[kept - 1], id}, {left, right}, word.count, index);
      if (i + 2 < word.length) replace_pair({right, s[i + 2]}, {id, s[i + 2]}, {left, right}, word.count, index);
      s[kept++] = id;
      ++i;
    }
    word.length = kept;
  }

  // The pair being merged has been counted down to zero already: overlaps ("aaa") must not take from it again.
  void replace_pair(std::pair<int32_t, int32_t> old, std::pair<int32_t, int32_t> made,
                    std::pair<int32_t, int32_t> merged, int64_t count, uint32_t word) {
    if (old != merged) change(old.first, old.second, -count, word);
    change(made.first, made.second, count, word);
  }

  BpeDefinition& definition_;
  std::unordered_map<std::string, int32_t> id_of_;
  std::vector<int32_t> symbols_;  // of all words, one after another
  std::vector<Word> words_;
  std::unordered_map<uint64_t, uint32_t> pair_of_;
  std::vector<Pair> pairs_;
  std::vector<uint32_t> risen_;
  std::priority_queue<Candidate> candidates_;
};

}  // namespace

BpeTrainer::BpeTrainer(BpeTrainerOptions options)
    : options_(checked(std::move(options))), counter_(rules_of(options_), options_.threads) {}

void BpeTrainer::add(std::string text) { counter_.add(std::move(text)); }

std::unique_ptr<Tokenizer> BpeTrainer::train() {
  const WordCounts counts = counter_.finish();
  if (counts.size() == 0) throw DataError("no text to train a tokenizer on: all documents are empty");

  BpeDefinition definition;
  for (const std::string& token : options_.special_tokens) {
    definition.added.push_back({.id = static_cast<int32_t>(definition.tokens.size()), .content = token});
    definition.tokens.push_back(token);
  }
  // Bytes in the order of their characters, as Hugging Face sorts its alphabet.
  std::vector<std::pair<uint32_t, int>> alphabet;
  for (int byte = 0; byte < 256; ++byte) alphabet.emplace_back(byte_level_alphabet()[byte], byte);
  std::ranges::sort(alphabet);
  std::vector<int32_t> id_of_byte(256);
  for (const auto& [character, byte] : alphabet) {
    id_of_byte[byte] = static_cast<int32_t>(definition.tokens.size());
    definition.tokens.push_back(to_byte_level(std::string(1, static_cast<char>(byte))));
  }
  definition.in_model.assign(definition.tokens.size(), true);
  if (options_.split_digits) definition.pre_tokenizer.push_back({.split = SplitRule::digit});
  definition.pre_tokenizer.push_back({.split = SplitRule::gpt2, .byte_level = true});

  Merger merger(counts, id_of_byte, definition);
  const auto made = [&] { return static_cast<int32_t>(definition.tokens.size()); };
  while (made() < options_.vocab_size && merger.step(options_.min_frequency))
    if (options_.progress && made() % 64 == 0) options_.progress(made());
  find_roles(definition);
  return std::make_unique<BpeTokenizer>(std::move(definition), "trained tokenizer");
}

}  // namespace mixtape
