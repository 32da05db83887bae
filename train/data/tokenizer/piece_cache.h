// Pieces repeat: a thread remembers the ids of recent short ones, one cache line each. Most of the work of encoding is
// then a scan and a look-up.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

namespace mixtape {

class PieceCache {
 public:
  // This thread's cache. It belongs to the owner that asked last, and is emptied for another.
  static PieceCache& of_thread(uint64_t owner) {
    static thread_local PieceCache cache;
    if (cache.owner_ != owner) {
      cache.entries_.assign(size_t{1} << bits, Entry{});
      cache.owner_ = owner;
    }
    return cache;
  }

  // Appends the ids of `piece`; encode(piece, ids) makes them where they are not known.
  template <class Encode>
  void append(std::string_view piece, std::vector<int32_t>& ids, Encode&& encode) {
    if (piece.size() > longest) return encode(piece, ids);
    const Key key(piece);
    Entry& entry = entries_[key.slot()];
    if (std::memcmp(key.words, entry.key, sizeof key.words) == 0) {
      ids.insert(ids.end(), entry.ids, entry.ids + entry.count);
      return;
    }
    const size_t before = ids.size();
    encode(piece, ids);
    const size_t count = ids.size() - before;
    if (count > most_ids) return;
    std::memcpy(entry.key, key.words, sizeof entry.key);
    entry.count = static_cast<int32_t>(count);
    std::copy_n(ids.begin() + before, count, entry.ids);  // of no ids, too
  }

 private:
  static constexpr size_t longest = 23, most_ids = 9;
  static constexpr int bits = 15;

  struct Entry {
    uint64_t key[3] = {};  // the bytes, padded with zeros; the last byte is their number, so all zeros is no piece
    int32_t ids[most_ids];
    int32_t count;
  };
  static_assert(sizeof(Entry) == 64);

  // The first n <= 8 bytes at `p` as a number, without reading beyond them.
  static uint64_t load_up_to_8(const char* p, size_t n) {
    if (n >= 8) {
      uint64_t all;
      std::memcpy(&all, p, 8);
      return all;
    }
    if (n >= 4) {
      uint32_t head, tail;
      std::memcpy(&head, p, 4);
      std::memcpy(&tail, p + n - 4, 4);
      return head | static_cast<uint64_t>(tail) << (n - 4) * 8;
    }
    uint64_t out = 0;
    for (size_t i = 0; i < n; ++i) out |= static_cast<uint64_t>(static_cast<uint8_t>(p[i])) << i * 8;
    return out;
  }

  struct Key {
    uint64_t words[3];
    explicit Key(std::string_view piece) : words{load_up_to_8(piece.data(), piece.size()), 0, 0} {
      const size_t n = piece.size();
      if (n > 8) words[1] = load_up_to_8(piece.data() + 8, n - 8);
      if (n > 16) words[2] = load_up_to_8(piece.data() + 16, n - 16);
      words[2] |= static_cast<uint64_t>(n) << 56;
    }
    size_t slot() const {
      uint64_t h = words[0] * 0x9E3779B97F4A7C15u ^ words[1] * 0xC2B2AE3D27D4EB4Fu ^ words[2] * 0x165667B19E3779F9u;
      h = (h ^ h >> 32) * 0x9E3779B97F4A7C15u;
      return h >> (64 - bits);
    }
  };

  uint64_t owner_ = 0;
  std::vector<Entry> entries_;
};

}  // namespace mixtape
