// What a device with memory of its own can do at best, measured there: the rate of a large product of a type, and of
// reading and copying more than its caches hold.
#pragma once

#include <functional>

#include "core/backend.h"
#include "train/bench/work.h"

namespace mixtape {

// True of the CPU, whose memory is the host's and whose limits probe.h measures.
bool is_cpu(const Backend& backend);

// `backend` is used up: it is bound to memory of its own. With a device that is slow (an emulated one) the sizes stay
// small, as they grow only until a call takes some milliseconds.
Limits measure_device_limits(Backend& backend, DType type);

// The seconds that the device takes for `work`, the least of a few calls, by its own clock.
double device_seconds(Backend& backend, int calls, const std::function<void()>& work);

}  // namespace mixtape
