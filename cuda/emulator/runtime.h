// How the emulated device runs what is queued: at once, or late.
//
// A device promises only that a queue runs in order and that events are waited for. Run late, an operation waits until
// the host waits for something, and then the queues take turns in an order drawn from the seed, no further than the
// host must wait. So a wait that is missing shows: as a copy of what is not there yet, or of what has changed since.
#pragma once

#include <functional>

#include "cuda/runtime.h"

namespace mixtape::emulator {

// Of the runtimes made from now on. Only for callers that read device memory by copies, as real ones must.
void run_late(bool late);
bool runs_late();

// Mistakes, for tests: waits that the caller asks for and does not get.
enum class LeftOut {
  nothing,
  waits_of_compute,
  waits_of_upload,
  waits_of_communication,
  waits_of_download,
  waits_of_host
};
void leave_out(LeftOut mistake);

// What the host has done so far, for tests: how often it waited while the device had not come so far yet, how often it
// asked for recorded work.
struct HostCounts {
  int64_t waits = 0, replays = 0;
};
HostCounts host_counts();

void queue(cuda::Runtime& runtime, std::function<void()> operation, cuda::Queue queue = cuda::Queue::compute);

}  // namespace mixtape::emulator
