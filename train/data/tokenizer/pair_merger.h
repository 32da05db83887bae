// Training by merging, shared by BPE and WordPiece: on counted words, the most frequent pair of neighbours becomes a
// token, again and again. Of pairs with the same count the one with the smaller ids wins, so the result depends on the
// counts alone.
#pragma once

#include <cstdint>
#include <optional>
#include <queue>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace mixtape {

class PairMerger {
 public:
  // `tokens` are the first ones; merges never spell one of the first `n_special`. The right part of a pair loses
  // `prefix` (WordPiece's ##) when it is joined.
  PairMerger(std::vector<std::string> tokens, int32_t n_special, std::string prefix = {});

  // A word, as ids of the first tokens; all before the first step.
  void add_word(const std::vector<int32_t>& symbols, int64_t count);

  // Makes one merge; false if no pair occurs `min_frequency` times.
  bool step(int64_t min_frequency);

  int32_t size() const { return static_cast<int32_t>(tokens_.size()); }
  std::vector<std::string> take_tokens() { return std::move(tokens_); }
  std::vector<std::pair<int32_t, int32_t>> take_merges() { return std::move(merges_); }

 private:
  struct Word {
    uint64_t begin;
    uint32_t length;
    int64_t count;
  };
  // A pair knows in how many places it stands and in which words; a merge rewrites those words and adjusts the counts
  // of the pairs at its two sides.
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

  std::string joined(int32_t left, int32_t right) const;
  std::optional<int32_t> token_for(const std::string& text);
  void change(int32_t left, int32_t right, int64_t count, uint32_t word);
  void offer_risen();
  void merge_in(uint32_t index, int32_t left, int32_t right, int32_t id);
  void replace_pair(std::pair<int32_t, int32_t> old, std::pair<int32_t, int32_t> made,
                    std::pair<int32_t, int32_t> merged, int64_t count, uint32_t word);

  std::vector<std::string> tokens_;
  int32_t n_special_;
  std::string prefix_;
  std::vector<std::pair<int32_t, int32_t>> merges_;
  std::unordered_map<std::string, int32_t> id_of_;
  std::vector<int32_t> symbols_;  // of all words, one after another
  std::vector<Word> words_;
  std::unordered_map<uint64_t, uint32_t> pair_of_;
  std::vector<Pair> pairs_;
  std::vector<uint32_t> risen_;
  std::priority_queue<Candidate> candidates_;
};

}  // namespace mixtape
