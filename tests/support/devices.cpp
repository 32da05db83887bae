#include <cstdlib>
#include <utility>

#include "cuda/backend.h"
#include "tests/support/op_test.h"
#if !MIXTAPE_TEST_GPU
#include "cuda/emulator/device.h"
#include "cuda/emulator/threads.h"
#endif

namespace mixtape {
namespace {

#if MIXTAPE_TEST_GPU
std::vector<TestDevice> cuda() {
  return {
      {.name = "cuda", .make = [](CpuOptions) -> std::unique_ptr<Backend> { return std::make_unique<CudaBackend>(); }}};
}
#else
// Each run has a seed of its own.
template <int compute_capability>
std::unique_ptr<Backend> emulated(CpuOptions) {
  emulator::set_seed(emulator::seed() + 1);
  const auto before = std::exchange(emulator::device().compute_capability, compute_capability);
  auto backend = std::make_unique<CudaBackend>();
  emulator::device().compute_capability = before;
  return backend;
}
// Hopper has attention of its own for the narrow types.
std::vector<TestDevice> cuda() {
  const auto attention = [](const OpTest& test, DType type) {
    return size_of(type) == 2 && (test.name == "attention" || test.name == "cross_attention");
  };
  return {{.name = "cuda-emulated", .make = emulated<80>, .host_memory = true},
          {.name = "cuda-emulated-hopper", .make = emulated<90>, .host_memory = true, .differs = attention}};
}
#endif

std::vector<TestDevice> all_devices() {
  const auto cpu = [](CpuOptions options) -> std::unique_ptr<Backend> { return std::make_unique<CpuBackend>(options); };
  std::vector<TestDevice> devices = cuda();
  devices.insert(devices.begin(), {.name = "cpu", .make = cpu, .threads = true, .host_memory = true});
  return devices;
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
