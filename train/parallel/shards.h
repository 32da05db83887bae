// Flat buffers between rank 0, which reads and writes files, and ranks that have them whole or a shard each.
#pragma once

#include <cstddef>
#include <vector>

#include "core/communicator.h"
#include "core/parameters.h"

namespace mixtape {

// A buffer of so many numbers, of which each rank has its shard: all of it on rank 0, nothing on the others. `each`: as
// of shard_of.
std::vector<std::byte> gather_shards(Communicator& ranks, Backend& backend, const Tensor& shard, int64_t numbers,
                                     int64_t each = 1);

// Rank 0's buffer of `elements` to every rank, which keeps in `to` the part `kept` of it. Others may pass null.
void distribute(Communicator& ranks, Backend& backend, const std::byte* all, int64_t elements, const Tensor& to,
                Shard kept);

}  // namespace mixtape
