// The emulated GPU of `mixtape_emulated` runs what is queued late, in an order drawn from MIXTAPE_EMULATOR_SEED.
#include <cstdlib>

#include "cuda/emulator/runtime.h"
#include "cuda/emulator/threads.h"

namespace {

const bool chosen = [] {
  const char* seed = std::getenv("MIXTAPE_EMULATOR_SEED");
  mixtape::emulator::set_seed(seed ? std::strtoull(seed, nullptr, 10) : 1);
  mixtape::emulator::run_late(true);
  return true;
}();

}  // namespace
