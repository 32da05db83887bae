// Flat buffers between rank 0, which reads files and writes weights, and ranks that have them whole or in parts.
#pragma once

#include <cstddef>
#include <vector>

#include "core/communicator.h"
#include "core/parameters.h"

namespace mixtape {

// A flat buffer of so many numbers, of which each rank brings parts of its own buffer, in order there: all of it on
// rank 0, nothing on the others. What nobody brings is 0.
std::vector<std::byte> gather(Communicator& ranks, const FlatState& own, const std::vector<Shards::Part>& brought,
                              int64_t numbers);

// Rank 0's buffer of `elements` to every rank, which keeps in `to` the parts of it that it has, in order. Others than
// rank 0 may pass null.
void distribute(Communicator& ranks, const std::byte* all, int64_t elements, const FlatState& to,
                const std::vector<Shards::Part>& kept);

}  // namespace mixtape
