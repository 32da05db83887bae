// Times what ranks exchange: through Communicator, and by MPI's own blocking calls on the same memory, in turns.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/communicator.h"
#include "train/bench/work.h"

namespace mixtape {

struct CommunicationTiming {
  std::string collective;
  int64_t bytes = 0;  // that are summed or gathered in all
  // That each rank must send, and receive: of W ranks 2 (W - 1) / W of the bytes for an all-reduce, half of that for
  // the others.
  double moved = 0;
  double seconds = 0, raw_seconds = 0;  // medians, of the slowest rank
};

struct CommunicationBench {
  int ranks = 1;
  int samples = 0;
  double copy = 0;  // bytes a second that a rank reads and writes while all do
  std::vector<CommunicationTiming> lines;
};

// All ranks call it with the same arguments; `bytes`: sizes, rounded up to a float for each rank.
CommunicationBench bench_communication(Communicator& ranks, const std::vector<int64_t>& bytes, int samples);

}  // namespace mixtape
