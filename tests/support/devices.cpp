#include <cstdlib>

#include "cuda/backend.h"
#include "cuda/emulator/threads.h"
#include "tests/support/op_test.h"

namespace mixtape {
namespace {

std::vector<TestDevice> all_devices() {
  const auto emulated = [](CpuOptions) -> std::unique_ptr<Backend> {
    emulator::set_seed(emulator::seed() + 1);
    return std::make_unique<CudaBackend>();
  };
  const auto cpu = [](CpuOptions options) -> std::unique_ptr<Backend> { return std::make_unique<CpuBackend>(options); };
  return {{.name = "cpu", .make = cpu, .threads = true, .host_memory = true},
          {.name = "cuda-emulated", .make = emulated, .host_memory = true}};
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
