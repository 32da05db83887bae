#include "cuda/runtime.h"

#include <vector>

#include "cuda/error.h"

namespace mixtape::cuda {

struct Runtime::State {
  cudaStream_t stream = nullptr;
  std::vector<void*> memory;
  std::string name;
};

Runtime::Runtime(int device) : state_(std::make_unique<State>()) {
  check(cudaSetDevice(device), "choosing the device");
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, device), "the device's properties");
  state_->name = fmt::format("cuda:{} ({})", device, properties.name);
  check(cudaStreamCreateWithFlags(&state_->stream, cudaStreamNonBlocking), "a stream");
}

// Errors of the end have nobody to tell.
Runtime::~Runtime() {
  cudaStreamSynchronize(state_->stream);
  for (void* p : state_->memory) cudaFree(p);
  cudaStreamDestroy(state_->stream);
}

std::string Runtime::name() const { return state_->name; }

void* Runtime::allocate(int64_t bytes) {
  void* p = nullptr;
  check(cudaMalloc(&p, size_t(bytes > 0 ? bytes : 1)), "device memory");
  state_->memory.push_back(p);
  return p;
}

void Runtime::copy_to_device(void* to, const void* from, int64_t bytes) {
  check(cudaMemcpyAsync(to, from, size_t(bytes), cudaMemcpyHostToDevice, state_->stream), "a copy to the device");
  synchronize();  // `from` is the caller's again
}

void Runtime::copy_to_host(void* to, const void* from, int64_t bytes) {
  check(cudaMemcpyAsync(to, from, size_t(bytes), cudaMemcpyDeviceToHost, state_->stream), "a copy from the device");
  synchronize();
}

void Runtime::zero(void* to, int64_t bytes) {
  check(cudaMemsetAsync(to, 0, size_t(bytes), state_->stream), "zeroing memory");
}

void Runtime::synchronize() { check(cudaStreamSynchronize(state_->stream), "waiting for the device"); }
void* Runtime::stream() const { return state_->stream; }

}  // namespace mixtape::cuda
