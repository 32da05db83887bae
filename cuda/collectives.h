// Collectives on the device's memory, in the order of the runtime's queue `communication`.
//
// nccl.cpp: NCCL's. absent_nccl.cpp: a build without its header. emulator/collectives.cpp: MPI's, on the memory that
// the host plays the device with.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "core/communicator.h"
#include "cuda/runtime.h"

namespace mixtape::cuda {

class Collectives {
 public:
  // Meets the other ranks, on whose processes `ranks` agree. Throws ConfigError where there is no library for it.
  Collectives(Runtime& runtime, Communicator& ranks);
  ~Collectives();
  Collectives(const Collectives&) = delete;
  Collectives& operator=(const Collectives&) = delete;

  // As Exchange's, queued. `own`: where this rank's sum goes.
  void all_reduce(float* values, int64_t count);
  void all_reduce(int64_t* values, int64_t count);
  void largest(int32_t* values, int64_t count);
  void all_to_all(const float* from, std::span<const int64_t> counts, float* to);
  void reduce_scatter(const float* from, std::span<const int64_t> counts, float* own);
  void all_gather(std::byte* all, std::span<const int64_t> bytes);
  std::string fault();

  // The library's version; empty: none is to be had, for the reason.
  static std::string version(std::string& missing);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace mixtape::cuda
