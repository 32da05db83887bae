#include "train/data/tokenizer/bpe_merges.h"

#include <array>
#include <bit>
#include <functional>
#include <queue>

namespace mixtape {
namespace {

constexpr size_t short_word = 64;  // symbols

}  // namespace

BpeMerges::BpeMerges(const std::vector<std::pair<int32_t, int32_t>>& pairs, const std::vector<int32_t>& ids) {
  const uint64_t slots = std::bit_ceil(pairs.size() * 2 + 2);
  table_.resize(slots);
  mask_ = slots - 1;
  shift_ = 64 - std::countr_zero(slots);
  for (size_t rank = 0; rank < pairs.size(); ++rank) {
    const uint64_t key = key_of(pairs[rank].first, pairs[rank].second);
    uint64_t slot = hash(key);
    while (table_[slot & mask_].key != empty && table_[slot & mask_].key != key) ++slot;
    table_[slot & mask_] = {key, {static_cast<uint32_t>(rank), ids[rank]}};
  }
}

void BpeMerges::apply(std::vector<int32_t>& symbols) const {
  if (symbols.size() < 2) return;
  if (symbols.size() <= short_word) return apply_short(symbols);
  apply_long(symbols);
}

void BpeMerges::apply_short(std::vector<int32_t>& symbols) const {
  std::array<Merge, short_word> merges;  // merges[i] joins symbols i and i + 1
  size_t count = symbols.size();
  for (size_t i = 0; i + 1 < count; ++i) merges[i] = find(symbols[i], symbols[i + 1]);
  while (count > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < count; ++i)
      if (merges[i].rank < merges[best].rank) best = i;
    if (merges[best].rank == no_rank) break;
    symbols[best] = merges[best].id;
    for (size_t i = best + 1; i + 1 < count; ++i) {
      symbols[i] = symbols[i + 1];
      merges[i - 1] = merges[i];  // of the old i, which is now i - 1; the last has no right neighbour
    }
    --count;
    if (best > 0) merges[best - 1] = find(symbols[best - 1], symbols[best]);
    if (best + 1 < count) merges[best] = find(symbols[best], symbols[best + 1]);
  }
  symbols.resize(count);
}

void BpeMerges::apply_long(std::vector<int32_t>& symbols) const {
  struct Node {
    int64_t previous, next;
    Merge merge;  // with the next symbol; no_rank too where this symbol is gone
  };
  struct Candidate {
    uint32_t rank;
    int64_t position;
    bool operator>(const Candidate& o) const { return rank != o.rank ? rank > o.rank : position > o.position; }
  };
  const auto count = static_cast<int64_t>(symbols.size());
  std::vector<Node> nodes(symbols.size());
  std::vector<Candidate> heap;
  std::priority_queue candidates(std::greater<Candidate>{}, std::move(heap));

  const auto offer = [&](int64_t i) {
    Node& node = nodes[i];
    node.merge = node.next < count ? find(symbols[i], symbols[node.next]) : Merge{};
    if (node.merge.rank != no_rank) candidates.push({node.merge.rank, i});
  };
  for (int64_t i = 0; i < count; ++i) nodes[i] = {i - 1, i + 1, {}};
  for (int64_t i = 0; i < count; ++i) offer(i);

  while (!candidates.empty()) {
    const auto [rank, i] = candidates.top();
    candidates.pop();
    Node& node = nodes[i];
    if (node.merge.rank != rank) continue;  // overtaken by another merge
    const int64_t gone = node.next;
    symbols[i] = node.merge.id;
    node.next = nodes[gone].next;
    nodes[gone].merge = {};
    if (node.next < count) nodes[node.next].previous = i;
    offer(i);
    if (node.previous >= 0) offer(node.previous);
  }
  int64_t kept = 0;
  for (int64_t i = 0; i < count; i = nodes[i].next) symbols[kept++] = symbols[i];
  symbols.resize(kept);
}

}  // namespace mixtape
