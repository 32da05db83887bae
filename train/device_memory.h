// How much of a device's memory is in use, as its driver says.
#pragma once

#include <cstdint>
#include <optional>

#include "train/devices.h"

namespace mixtape {

// Bytes of a GPU's, by all processes; none where the device's memory is the host's.
std::optional<int64_t> device_memory_in_use(const DeviceOptions& options);

}  // namespace mixtape
