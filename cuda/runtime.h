// One device as the back end uses it: its memory, and a stream on which everything happens in order.
//
// runtime.cpp is CUDA's; emulator/runtime.cpp is the host's memory, where a launch has run when it returns.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace mixtape::cuda {

class Runtime {
 public:
  explicit Runtime(int device);
  ~Runtime();
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

  std::string name() const;
  // Device memory, kept until the runtime ends.
  void* allocate(int64_t bytes);
  // In the stream's order. What `from` and `to` hold on the host is read or there when these return.
  void copy_to_device(void* to, const void* from, int64_t bytes);
  void copy_to_host(void* to, const void* from, int64_t bytes);
  void zero(void* to, int64_t bytes);
  void synchronize();
  // cudaStream_t; null on the host.
  void* stream() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace mixtape::cuda
