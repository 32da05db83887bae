#include "train/parallel/shards.h"

#include <algorithm>
#include <cstring>

namespace mixtape {
namespace {

constexpr int64_t piece_elements = 4 << 20;

// Elements [begin, end) of a tensor of one dimension.
Tensor elements_of(const Tensor& flat, int64_t begin, int64_t end) {
  return Tensor(flat.raw() + begin * size_of(flat.dtype()), {end - begin}, flat.dtype());
}

}  // namespace

std::vector<std::byte> gather_shards(Communicator& ranks, Backend& backend, const Tensor& shard, int64_t numbers,
                                     int64_t each) {
  const int64_t size = size_of(shard.dtype());
  std::vector<std::byte> all(ranks.rank() == 0 ? size_t(numbers * size) : 0), piece;
  for (int owner = 0; owner < ranks.size(); ++owner) {
    const Shard part = shard_of(numbers, {owner, ranks.size()}, each);
    for (int64_t at = 0; at < part.count; at += piece_elements) {
      const int64_t end = std::min(part.count, at + piece_elements);
      piece.resize(size_t((end - at) * size));
      if (owner == ranks.rank()) backend.copy_to_host(piece.data(), elements_of(shard, at, end));
      if (owner > 0) ranks.broadcast(piece, owner);
      if (ranks.rank() == 0) std::memcpy(all.data() + (part.begin + at) * size, piece.data(), piece.size());
    }
  }
  return all;
}

void distribute(Communicator& ranks, Backend& backend, const std::byte* all, int64_t elements, const Tensor& to,
                Shard kept) {
  const int64_t size = size_of(to.dtype());
  std::vector<std::byte> piece;
  for (int64_t at = 0; at < elements; at += piece_elements) {
    const int64_t end = std::min(elements, at + piece_elements);
    piece.resize(size_t((end - at) * size));
    if (ranks.rank() == 0) std::memcpy(piece.data(), all + at * size, piece.size());
    ranks.broadcast(piece, 0);
    const int64_t first = std::max(at, kept.begin), last = std::min(end, kept.end());
    if (first < last)
      backend.copy_from_host(elements_of(to, first - kept.begin, last - kept.begin),
                             piece.data() + (first - at) * size);
  }
}

}  // namespace mixtape
