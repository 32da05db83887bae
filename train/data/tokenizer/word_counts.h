// How often each piece of a text occurs: all that BPE training needs to know of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "train/data/tokenizer/normalizer.h"
#include "train/data/tokenizer/split.h"

namespace mixtape {

// Strings with counts: an open-addressing table over one block of characters.
class WordCounts {
 public:
  void add(std::string_view word, int64_t count = 1);
  void add(const WordCounts& other);
  size_t size() const { return used_; }

  // Calls f(string_view word, int64_t count) for each word, in no particular order.
  template <class F>
  void for_each(F&& f) const {
    for (const Slot& slot : slots_)
      if (slot.count) f(std::string_view(characters_).substr(slot.offset, slot.length), slot.count);
  }

 private:
  struct Slot {
    uint64_t hash = 0, offset = 0;
    int64_t count = 0;  // 0: free
    uint32_t length = 0;
  };
  Slot& find(std::string_view word, uint64_t hash);
  void grow();

  std::string characters_;
  std::vector<Slot> slots_;
  size_t used_ = 0;
};

// Normalizes texts, splits them by `rules`, one within the pieces of the one before, and counts the pieces (white space
// that a rule drops is none) on several threads. The
// result does not depend on their number. Pieces longer than 4096 bytes (no words, but encoded data) are cut there: a
// merge rewrites every word that holds it, and without a bound one such word would make training quadratic.
class WordCounter {
 public:
  WordCounter(std::vector<SplitRule> rules, int threads, std::vector<NormalizerStep> normalizer = {});
  ~WordCounter();

  void add(std::string text);
  // The counts; nothing can be added after it. Throws what a thread threw.
  WordCounts finish();

 private:
  class Workers;
  std::unique_ptr<Workers> workers_;
  std::vector<std::string> batch_;
  size_t batch_bytes_ = 0;
};

}  // namespace mixtape
