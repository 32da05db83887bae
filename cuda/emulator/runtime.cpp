// The device is the host: memory is the host's, and whatever is asked for has been done when a call returns.
#include "cuda/runtime.h"

#include <cstring>
#include <deque>

#include "core/memory.h"

namespace mixtape::cuda {

struct Runtime::State {
  std::deque<HostMemory> memory;
};

Runtime::Runtime(int) : state_(std::make_unique<State>()) {}
Runtime::~Runtime() = default;

std::string Runtime::name() const { return "cuda, emulated"; }
void* Runtime::allocate(int64_t bytes) { return state_->memory.emplace_back(bytes).data(); }
void Runtime::copy_to_device(void* to, const void* from, int64_t bytes) { std::memcpy(to, from, size_t(bytes)); }
void Runtime::copy_to_host(void* to, const void* from, int64_t bytes) { std::memcpy(to, from, size_t(bytes)); }
void Runtime::zero(void* to, int64_t bytes) { std::memset(to, 0, size_t(bytes)); }
void Runtime::synchronize() {}
void* Runtime::stream() const { return nullptr; }

}  // namespace mixtape::cuda
