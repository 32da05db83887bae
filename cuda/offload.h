// State in pinned memory of the host, on its way by queues of its own while `compute` goes on.
//
// A fetch follows the stores before it, since it may be into the memory that one of them takes, or from where it goes;
// a store follows what `compute` was asked for. So state that is fetched, updated and stored in two places in turns
// goes both ways at once, and the host waits for none of it.
#pragma once

#include <array>
#include <string>

#include "core/offload.h"
#include "cuda/runtime.h"

namespace mixtape::cuda {

class PinnedOffload final : public Offload {
 public:
  // Throws ConfigError if the host does not have the memory.
  PinnedOffload(Runtime& runtime, int64_t bytes);

  Ticket fetch(const Tensor& to, int64_t at) override;
  void wait(Ticket ticket) override;
  void store(int64_t at, const Tensor& from) override;
  void finish() override { runtime_.synchronize(); }
  void read(void* to, int64_t at, int64_t bytes) override;

 private:
  void host_write(int64_t at, const void* from, int64_t bytes) override;

  // A fetch that is further back than these is waited for by the oldest of them, which is behind it.
  static constexpr int64_t remembered = 16;
  Runtime& runtime_;
  std::byte* memory_;  // the runtime's
  std::array<Event, remembered> fetched_;
  Event computed_, stored_;
  Ticket next_ = 0;
};

}  // namespace mixtape::cuda
