// What the emulated device says it is: launchers choose kernels by it. A test sets it before it makes a back end.
#pragma once

namespace mixtape::emulator {

struct DeviceProperties {
  int compute_capability = 80;
  int devices = 1;          // of the machine
  int multiprocessors = 2;  // few, so that a block which stays has several tiles to do
};
DeviceProperties& device();

}  // namespace mixtape::emulator
