#include <cstdlib>

#include "cuda/backend.h"
#include "tests/support/op_test.h"
#if !MIXTAPE_TEST_GPU
#include "cuda/emulator/threads.h"
#endif

namespace mixtape {
namespace {

#if MIXTAPE_TEST_GPU
TestDevice cuda() {
  return {.name = "cuda",
          .make = [](CpuOptions) -> std::unique_ptr<Backend> { return std::make_unique<CudaBackend>(); }};
}
#else
// Each run has a seed of its own.
TestDevice cuda() {
  const auto make = [](CpuOptions) -> std::unique_ptr<Backend> {
    emulator::set_seed(emulator::seed() + 1);
    return std::make_unique<CudaBackend>();
  };
  return {.name = "cuda-emulated", .make = make, .host_memory = true};
}
#endif

std::vector<TestDevice> all_devices() {
  const auto cpu = [](CpuOptions options) -> std::unique_ptr<Backend> { return std::make_unique<CpuBackend>(options); };
  return {{.name = "cpu", .make = cpu, .threads = true, .host_memory = true}, cuda()};
}

bool wanted(const std::string& name) {
  const char* list = std::getenv("MIXTAPE_TEST_DEVICES");
  return !list || ("," + std::string(list) + ",").find("," + name + ",") != std::string::npos;
}

}  // namespace

const std::vector<TestDevice>& test_devices() {
  static const std::vector<TestDevice> devices = [] {
    std::vector<TestDevice> list;
    for (const TestDevice& device : all_devices())
      if (wanted(device.name)) list.push_back(device);
    if (list.empty()) throw Error("MIXTAPE_TEST_DEVICES names no device of this build");
    return list;
  }();
  return devices;
}

}  // namespace mixtape
