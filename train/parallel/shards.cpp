#include "train/parallel/shards.h"

#include <algorithm>
#include <cstring>

#include "train/parallel/world.h"

namespace mixtape {
namespace {

constexpr int64_t piece_elements = 4 << 20;

// The parts that another rank brings.
std::vector<Shards::Part> parts_from(Communicator& ranks, int owner, const std::vector<Shards::Part>& mine) {
  int64_t n = int64_t(mine.size());
  ranks.broadcast(std::as_writable_bytes(std::span(&n, 1)), owner);
  std::vector<Shards::Part> parts(static_cast<size_t>(n));
  if (owner == ranks.rank()) parts = mine;
  ranks.broadcast(std::as_writable_bytes(std::span(parts)), owner);
  return parts;
}

}  // namespace

std::vector<std::byte> gather(Communicator& ranks, const FlatState& own, const std::vector<Shards::Part>& brought,
                              int64_t numbers) {
  const int64_t size = size_of(own.dtype());
  const bool here = ranks.rank() == 0;
  std::vector<std::byte> all(here ? size_t(numbers * size) : 0), piece;
  for (int owner = 0; owner < ranks.size(); ++owner) {
    const std::vector<Shards::Part> parts = parts_from(ranks, owner, brought);
    if (parts.empty()) continue;
    // Parts lie one behind another, but for what aligns them: pieces of the buffer, whatever is in them.
    auto part = parts.begin();
    for (int64_t at = parts.front().at, end = parts.back().place().end(); at < end; at += piece_elements) {
      const int64_t count = std::min(end - at, piece_elements);
      piece.resize(size_t(count * size));
      if (owner == ranks.rank()) own.read(piece.data(), at, count);
      if (owner > 0) ranks.broadcast(piece, owner);
      if (!here) continue;
      for (; part != parts.end() && part->at < at + count; ++part) {
        const int64_t first = std::max(at, part->at), last = std::min(at + count, part->place().end());
        std::memcpy(all.data() + (part->run.begin + first - part->at) * size, piece.data() + (first - at) * size,
                    size_t((last - first) * size));
        if (last < part->place().end()) break;  // the rest is in the next piece
      }
    }
  }
  return all;
}

void distribute(Communicator& ranks, const std::byte* all, int64_t elements, const FlatState& to,
                const std::vector<Shards::Part>& kept) {
  const int64_t size = size_of(to.dtype());
  std::vector<std::byte> piece;
  auto part = kept.begin();
  for (int64_t at = 0; at < elements; at += piece_elements) {
    const int64_t end = std::min(elements, at + piece_elements);
    piece.resize(size_t((end - at) * size));
    if (ranks.rank() == 0) std::memcpy(piece.data(), all + at * size, piece.size());
    ranks.broadcast(piece, 0);
    for (; part != kept.end() && part->run.begin < end; ++part) {
      const int64_t first = std::max(at, part->run.begin), last = std::min(end, part->run.end());
      if (first < last) to.write(part->at + first - part->run.begin, last - first, piece.data() + (first - at) * size);
      if (part->run.end() > end) break;
    }
  }
}

}  // namespace mixtape
