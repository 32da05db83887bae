#include "train/parallel/shards.h"

#include <algorithm>
#include <cstring>
#include <numeric>

namespace mixtape {
namespace {

constexpr int64_t piece_elements = 4 << 20;
// Of a rank's message: what the communicator can count in units of (all_gather of more than 2 GB).
constexpr int64_t message_unit = 64;

// What is in `run` of these parts, which are in the order of their runs.
std::vector<Shards::Part> within(const std::vector<Shards::Part>& parts, Run run) {
  std::vector<Shards::Part> found;
  auto part = std::ranges::partition_point(parts, [&](const Shards::Part& p) { return p.run.end() <= run.begin; });
  for (; part != parts.end() && part->run.begin < run.end(); ++part) {
    const int64_t first = std::max(run.begin, part->run.begin), last = std::min(run.end(), part->run.end());
    found.push_back({{first, last - first}, part->at + first - part->run.begin});
  }
  return found;
}

// What a rank brings: its parts, and the numbers of its buffer from the first to the last of them.
struct Brought {
  int64_t parts = 0, numbers = 0;
  int64_t bytes(int64_t size) const {
    const int64_t all = parts * int64_t(sizeof(Shards::Part)) + numbers * size;
    return (all + message_unit - 1) / message_unit * message_unit;
  }
};

void take(std::vector<std::byte>& all, Run wanted, int64_t size, const Brought& brought, const std::byte* message) {
  const std::byte* const numbers = message + brought.parts * int64_t(sizeof(Shards::Part));
  for (int64_t i = 0; i < brought.parts; ++i) {
    Shards::Part part;
    std::memcpy(&part, message + i * int64_t(sizeof part), sizeof part);
    std::memcpy(all.data() + (part.run.begin - wanted.begin) * size, numbers + part.at * size,
                size_t(part.run.count * size));
  }
}

}  // namespace

std::vector<std::byte> gather(Communicator& ranks, const FlatState& own, const std::vector<Shards::Part>& brought,
                              Run wanted, int to) {
  const int64_t size = size_of(own.dtype());
  std::vector<Shards::Part> mine = within(brought, wanted);
  const int64_t begin = mine.empty() ? 0 : mine.front().at;
  for (Shards::Part& part : mine) part.at -= begin;

  const auto world = size_t(ranks.size()), here = size_t(ranks.rank());
  std::vector<Brought> of_ranks(world);
  of_ranks[here] = {int64_t(mine.size()), mine.empty() ? 0 : mine.back().place().end()};
  ranks.all_gather(std::as_writable_bytes(std::span(of_ranks)), std::vector(world, int64_t(sizeof(Brought))));
  std::vector<int64_t> bytes, at(world);
  for (const Brought& b : of_ranks) bytes.push_back(b.bytes(size));
  std::exclusive_scan(bytes.begin(), bytes.end(), at.begin(), int64_t(0));

  std::vector<std::byte> messages(size_t(at.back() + bytes.back()));
  std::byte* const message = messages.data() + at[here];
  if (!mine.empty()) {
    std::memcpy(message, mine.data(), mine.size() * sizeof(Shards::Part));
    own.read(message + mine.size() * sizeof(Shards::Part), begin, of_ranks[here].numbers);
  }
  ranks.all_gather(messages, bytes);
  std::vector<std::byte> all(ranks.rank() == to ? size_t(wanted.count * size) : 0);
  if (ranks.rank() == to)
    for (size_t r = 0; r < world; ++r) take(all, wanted, size, of_ranks[r], messages.data() + at[r]);
  return all;
}

void keep(const std::byte* numbers, Run run, const FlatState& to, const std::vector<Shards::Part>& kept) {
  const int64_t size = size_of(to.dtype());
  for (const Shards::Part& part : within(kept, run))
    to.write(part.at, part.run.count, numbers + (part.run.begin - run.begin) * size);
}

void distribute(Communicator& ranks, const std::byte* numbers, Run run, const FlatState& to,
                const std::vector<Shards::Part>& kept) {
  const int64_t size = size_of(to.dtype());
  std::vector<std::byte> piece;
  for (int64_t at = 0; at < run.count; at += piece_elements) {
    const Run now{run.begin + at, std::min(piece_elements, run.count - at)};
    piece.resize(size_t(now.count * size));
    if (ranks.rank() == 0) std::memcpy(piece.data(), numbers + at * size, piece.size());
    ranks.broadcast(piece, 0);
    keep(piece.data(), now, to, kept);
  }
}

}  // namespace mixtape
