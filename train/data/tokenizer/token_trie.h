// A set of tokens that finds those which a text begins with: a trie over bytes, its edges in one hash table.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace mixtape {

class TokenTrie {
 public:
  TokenTrie();

  // `token` is not empty. Throws DataError beyond 2^28 different beginnings of tokens.
  void add(std::string_view token, int32_t id);

  // Calls found(length, id) for each token that `text` begins with, the shortest first.
  template <class Found>
  void prefixes(std::string_view text, Found&& found) const {
    uint32_t node = 0;
    for (size_t i = 0; i < text.size(); ++i) {
      node = child(node, static_cast<uint8_t>(text[i]));
      if (node == 0) return;
      if (id_of_node_[node] >= 0) found(i + 1, id_of_node_[node]);
    }
  }

 private:
  // An edge is its key (node and byte, 36 bits) above the child (28 bits); 0 is a free slot: the root is no child.
  static constexpr int child_bits = 28;
  static uint64_t key_of(uint32_t node, uint8_t byte) { return static_cast<uint64_t>(node) << 8 | byte; }
  uint64_t slot_of(uint64_t key) const { return key * 0x9E3779B97F4A7C15u >> shift_; }

  uint32_t child(uint32_t node, uint8_t byte) const {
    const uint64_t key = key_of(node, byte);
    for (uint64_t slot = slot_of(key);; ++slot) {
      const uint64_t edge = edges_[slot & (edges_.size() - 1)];
      if (edge >> child_bits == key && edge != 0) return edge & ((uint32_t{1} << child_bits) - 1);
      if (edge == 0) return 0;
    }
  }
  void insert(uint64_t edge);
  void grow();

  std::vector<uint64_t> edges_;
  std::vector<int32_t> id_of_node_;  // or -1
  int shift_ = 0;
};

}  // namespace mixtape
