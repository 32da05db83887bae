// The heart of BPE: while any two neighbours can be merged, merge the pair of the lowest rank, the leftmost first.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace mixtape {

class BpeMerges {
 public:
  static constexpr uint32_t no_rank = UINT32_MAX;
  struct Merge {
    uint32_t rank = no_rank;
    int32_t id = -1;
  };

  // `pairs` by rank, `ids` what each becomes. Of a pair given twice the last counts.
  BpeMerges(const std::vector<std::pair<int32_t, int32_t>>& pairs, const std::vector<int32_t>& ids);

  Merge find(int32_t left, int32_t right) const {
    const uint64_t key = key_of(left, right);
    for (uint64_t slot = hash(key);; ++slot) {
      const Entry& entry = table_[slot & mask_];
      if (entry.key == key) return entry.merge;
      if (entry.key == empty) return {};
    }
  }

  // Merges `symbols` in place, as far as it goes. Short words by scanning for the least rank (quadratic, but within
  // one cache line or two), longer ones with a heap: O(n log n).
  void apply(std::vector<int32_t>& symbols) const;

 private:
  struct Entry {
    uint64_t key = empty;
    Merge merge;
  };
  static constexpr uint64_t empty = UINT64_MAX;  // no key: ids are not negative
  static uint64_t key_of(int32_t left, int32_t right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  }
  uint64_t hash(uint64_t key) const { return (key ^ key >> 29) * 0x9E3779B97F4A7C15u >> shift_; }

  void apply_short(std::vector<int32_t>& symbols) const;
  void apply_long(std::vector<int32_t>& symbols) const;

  std::vector<Entry> table_;
  uint64_t mask_ = 0;
  int shift_ = 0;
};

}  // namespace mixtape
