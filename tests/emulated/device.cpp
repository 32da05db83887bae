// The emulated GPU of `mixtape_emulated` runs what is queued late, in an order drawn from MIXTAPE_EMULATOR_SEED. The
// machine has MIXTAPE_EMULATOR_DEVICES of it.
#include <cstdlib>

#include "cuda/emulator/device.h"
#include "cuda/emulator/runtime.h"
#include "cuda/emulator/threads.h"

namespace {

const bool chosen = [] {
  const char* seed = std::getenv("MIXTAPE_EMULATOR_SEED");
  mixtape::emulator::set_seed(seed ? std::strtoull(seed, nullptr, 10) : 1);
  mixtape::emulator::run_late(true);
  const char* devices = std::getenv("MIXTAPE_EMULATOR_DEVICES");
  if (devices) mixtape::emulator::device().devices = std::atoi(devices);
  return true;
}();

}  // namespace
