// What is outside of a GPU's memory, on its way by queues of its own while `compute` goes on.
//
// A fetch follows what `compute` was asked for, which may use the memory that it fills, and the stores before it, since
// it may be into the memory that one of them takes, or from where it goes; a store follows what `compute` was asked
// for. So what is fetched, used and stored in two places in turns goes both ways at once, and the host waits for none
// of it.
#pragma once

#include <array>

#include "core/offload.h"
#include "cuda/runtime.h"

namespace mixtape::cuda {

// The order of fetches and stores; where the bytes are is another's care.
class QueuedOffload : public Offload {
 public:
  Ticket fetch(const Tensor& to, int64_t at) final;
  void wait(Ticket ticket) final;
  void store(int64_t at, const Tensor& from) final;
  void wait_for_stores() final;
  void finish() override { runtime_.synchronize(); }

 protected:
  explicit QueuedOffload(Runtime& runtime);
  // Asks `upload`, or `download`, for the bytes.
  virtual void bring(const Tensor& to, int64_t at) = 0;
  virtual void take(int64_t at, const Tensor& from) = 0;
  Runtime& runtime_;

 private:
  // A fetch that is further back than these is waited for by the oldest of them, which is behind it.
  static constexpr int64_t remembered = 16;
  std::array<Event, remembered> fetched_;
  Event computed_, stored_;
  Ticket next_ = 0;
};

// In pinned memory of the host.
class PinnedOffload final : public QueuedOffload {
 public:
  // Throws ConfigError if the host does not have the memory.
  PinnedOffload(Runtime& runtime, const OffloadRoom& room);
  void read(void* to, int64_t at, int64_t bytes) override;

 private:
  void bring(const Tensor& to, int64_t at) override;
  void take(int64_t at, const Tensor& from) override;
  void host_write(int64_t at, const void* from, int64_t bytes) override;
  std::byte* memory_;  // the runtime's
};

}  // namespace mixtape::cuda
