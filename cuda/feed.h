// Inputs on their way to the device while it computes: two slots, each pinned memory of the host and memory of the
// device.
//
// The upload queue carries a slot over; then the compute queue copies it to the block that kernels read, whose address
// therefore never changes. The host may fill a slot when its last upload has been sent, and the upload may overwrite
// the device's half when that has been copied to the block; so while one micro-batch is computed the next is on its
// way.
#pragma once

#include <array>

#include "core/backend.h"
#include "cuda/runtime.h"

namespace mixtape::cuda {

class DoubleFeed final : public Feed {
 public:
  DoubleFeed(const Backend& backend, Runtime& runtime, const Tensor& block);
  std::byte* fill() override;
  void send() override;

 private:
  struct Slot {
    Tensor device;
    std::byte* pinned = nullptr;
    Event sent = 0, taken = 0;
  };
  Runtime& runtime_;
  Tensor block_;
  std::array<Slot, 2> slots_;
  size_t next_ = 0;
};

}  // namespace mixtape::cuda
