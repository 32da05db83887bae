#include "train/data/tokenizer/token_trie.h"

#include <bit>

#include "core/base/error.h"

namespace mixtape {

TokenTrie::TokenTrie() : edges_(1024), id_of_node_{-1}, shift_(64 - std::countr_zero(edges_.size())) {}

void TokenTrie::insert(uint64_t edge) {
  uint64_t slot = slot_of(edge >> child_bits);
  while (edges_[slot & (edges_.size() - 1)] != 0) ++slot;
  edges_[slot & (edges_.size() - 1)] = edge;
}

void TokenTrie::grow() {
  std::vector<uint64_t> old(edges_.size() * 2);
  old.swap(edges_);
  shift_ = 64 - std::countr_zero(edges_.size());
  for (const uint64_t edge : old)
    if (edge != 0) insert(edge);
}

void TokenTrie::add(std::string_view token, int32_t id) {
  uint32_t node = 0;
  for (const char c : token) {
    const auto byte = static_cast<uint8_t>(c);
    uint32_t next = child(node, byte);
    if (next == 0) {
      next = static_cast<uint32_t>(id_of_node_.size());
      if (next >> child_bits) throw DataError("a vocabulary of more than 256 MiB of different tokens");
      id_of_node_.push_back(-1);
      if (id_of_node_.size() * 2 > edges_.size()) grow();
      insert(key_of(node, byte) << child_bits | next);
    }
    node = next;
  }
  id_of_node_[node] = id;
}

}  // namespace mixtape
