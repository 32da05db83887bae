// Flat buffers of which ranks have parts, and what is whole on one of them.
#pragma once

#include <cstddef>
#include <vector>

#include "core/communicator.h"
#include "core/parameters.h"

namespace mixtape {

// Numbers `wanted` of a flat buffer, of which each rank brings parts of its own buffer, in order there: all of them on
// rank `to`, nothing on the others, each of which holds as many meanwhile. What nobody brings is 0.
std::vector<std::byte> gather(Communicator& ranks, const FlatState& own, const std::vector<Shards::Part>& brought,
                              Run wanted, int to);

// Of numbers `run` of a flat buffer those that a rank has, in its parts `kept`, to their places.
void keep(const std::byte* numbers, Run run, const FlatState& to, const std::vector<Shards::Part>& kept);

// The same on all ranks of rank 0's numbers; others may pass null.
void distribute(Communicator& ranks, const std::byte* numbers, Run run, const FlatState& to,
                const std::vector<Shards::Part>& kept);

}  // namespace mixtape
