#include "train/parallel/shards.h"

#include <algorithm>
#include <cstring>

namespace mixtape {
namespace {

constexpr int64_t piece_elements = 4 << 20;

}  // namespace

std::vector<std::byte> gather_shards(Communicator& ranks, Backend& backend, const Tensor& own, const Shards& shards,
                                     int64_t numbers, int64_t each) {
  const int64_t size = size_of(own.dtype());
  std::vector<std::byte> all(ranks.rank() == 0 ? size_t(numbers * size) : 0), piece;
  for (int owner = 0; owner < ranks.size(); ++owner)
    for (const Shards::Part& part : shards.parts(owner, each))
      for (int64_t at = 0; at < part.run.count; at += piece_elements) {
        const int64_t count = std::min(part.run.count - at, piece_elements);
        piece.resize(size_t(count * size));
        if (owner == ranks.rank()) backend.copy_to_host(piece.data(), Parameters::part(own, {part.at + at, count}));
        if (owner > 0) ranks.broadcast(piece, owner);
        if (ranks.rank() == 0) std::memcpy(all.data() + (part.run.begin + at) * size, piece.data(), piece.size());
      }
  return all;
}

void distribute(Communicator& ranks, Backend& backend, const std::byte* all, int64_t elements, const Tensor& to,
                const std::vector<Shards::Part>& kept) {
  const int64_t size = size_of(to.dtype());
  std::vector<std::byte> piece;
  for (int64_t at = 0; at < elements; at += piece_elements) {
    const int64_t end = std::min(elements, at + piece_elements);
    piece.resize(size_t((end - at) * size));
    if (ranks.rank() == 0) std::memcpy(piece.data(), all + at * size, piece.size());
    ranks.broadcast(piece, 0);
    for (const Shards::Part& part : kept) {
      const int64_t first = std::max(at, part.run.begin), last = std::min(end, part.run.end());
      if (first < last)
        backend.copy_from_host(Parameters::part(to, {part.at + first - part.run.begin, last - first}),
                               piece.data() + (first - at) * size);
    }
  }
}

}  // namespace mixtape
