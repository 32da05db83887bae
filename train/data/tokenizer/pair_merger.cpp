#include "train/data/tokenizer/pair_merger.h"

#include <algorithm>

namespace mixtape {

PairMerger::PairMerger(std::vector<std::string> tokens, int32_t n_special, std::string prefix)
    : tokens_(std::move(tokens)), n_special_(n_special), prefix_(std::move(prefix)) {
  for (size_t id = 0; id < tokens_.size(); ++id) id_of_[tokens_[id]] = static_cast<int32_t>(id);
}

void PairMerger::add_word(const std::vector<int32_t>& symbols, int64_t count) {
  const auto word = static_cast<uint32_t>(words_.size());
  words_.push_back({symbols_.size(), static_cast<uint32_t>(symbols.size()), count});
  symbols_.insert(symbols_.end(), symbols.begin(), symbols.end());
  for (size_t i = 0; i + 1 < symbols.size(); ++i) change(symbols[i], symbols[i + 1], count, word);
}

bool PairMerger::step(int64_t min_frequency) {
  offer_risen();
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
    const std::optional<int32_t> id = token_for(joined(left, right));
    if (!id) continue;
    merges_.emplace_back(left, right);
    for (const uint32_t word : words) merge_in(word, left, right, *id);
    return true;
  }
  return false;
}

std::string PairMerger::joined(int32_t left, int32_t right) const {
  return tokens_[left] + tokens_[right].substr(prefix_.size());
}

// The token with this text: usually new; an older one where two ways lead to it; nothing if the text is special.
std::optional<int32_t> PairMerger::token_for(const std::string& text) {
  const auto [found, is_new] = id_of_.emplace(text, size());
  if (is_new) tokens_.push_back(text);
  if (found->second < n_special_) return std::nullopt;
  return found->second;
}

void PairMerger::change(int32_t left, int32_t right, int64_t count, uint32_t word) {
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

void PairMerger::offer_risen() {
  for (const uint32_t index : risen_) {
    Pair& pair = pairs_[index];
    pair.risen = false;
    if (pair.count > 0) candidates_.push({pair.count, pair.left, pair.right, index});
  }
  risen_.clear();
}

void PairMerger::merge_in(uint32_t index, int32_t left, int32_t right, int32_t id) {
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
void PairMerger::replace_pair(std::pair<int32_t, int32_t> old, std::pair<int32_t, int32_t> made,
                              std::pair<int32_t, int32_t> merged, int64_t count, uint32_t word) {
  if (old != merged) change(old.first, old.second, -count, word);
  change(made.first, made.second, count, word);
}

}  // namespace mixtape
