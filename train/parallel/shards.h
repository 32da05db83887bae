// Flat buffers between rank 0, which reads and writes files, and ranks that have them whole or in parts.
#pragma once

#include <cstddef>
#include <vector>

#include "core/communicator.h"
#include "core/parameters.h"

namespace mixtape {

// A flat buffer of what learns, of so many numbers, of which each rank has its own parts: all of it on rank 0, nothing
// on the others. `each`: how many elements a number is for.
std::vector<std::byte> gather_shards(Communicator& ranks, Backend& backend, const Tensor& own, const Shards& shards,
                                     int64_t numbers, int64_t each = 1);

// Rank 0's buffer of `elements` to every rank, which keeps in `to` the parts of it that it has. Others may pass null.
void distribute(Communicator& ranks, Backend& backend, const std::byte* all, int64_t elements, const Tensor& to,
                const std::vector<Shards::Part>& kept);

}  // namespace mixtape
