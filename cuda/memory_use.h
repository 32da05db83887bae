// How much of a GPU's memory is in use.
#pragma once

#include <cstdint>

namespace mixtape::cuda {

// Bytes, by all processes, as the driver says.
int64_t memory_in_use(int device);

}  // namespace mixtape::cuda
