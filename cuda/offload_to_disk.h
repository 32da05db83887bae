// What is outside of a GPU's memory in a file, by way of pinned memory of the host.
//
// It goes in chunks through two slots in each direction: while the device copies one chunk, the file's thread reads or
// writes another. The host's part of that is called by the queues themselves, in their order, so nobody else waits. A
// chunk's fetch is behind its store since `upload` waits for `download`, and the file's requests are carried out in
// order.
#pragma once

#include <array>
#include <atomic>

#include "core/offload_file.h"
#include "cuda/offload.h"

namespace mixtape::cuda {

class OffloadToDisk final : public QueuedOffload {
 public:
  static constexpr int64_t chunk_bytes = int64_t(4) << 20;

  // Throws ConfigError as OffloadFile does.
  OffloadToDisk(Runtime& runtime, const OffloadRoom& room);
  ~OffloadToDisk() override;

  void finish() override;
  void check() override { file_.check(); }
  void read(void* to, int64_t at, int64_t bytes) override;
  int descriptor() const { return file_.descriptor(); }  // for tests

 private:
  // What a queue calls for one chunk.
  struct Call {
    OffloadToDisk* self = nullptr;
    size_t slot = 0;
    int64_t at = 0, bytes = 0, next_bytes = 0;  // next: of the chunk that follows in the same fetch
    bool first = false;                         // of its fetch
  };
  // A direction. Tickets are those of the file, and belong to the calls.
  struct Way {
    std::array<std::byte*, 2> slots{};
    std::array<Offload::Ticket, 2> tickets{};
    std::array<Call, 256> calls;
    int64_t asked = 0;
    std::atomic<int64_t> done = 0;
  };
  void bring(const Tensor& to, int64_t at) override;
  void take(int64_t at, const Tensor& from) override;
  void host_write(int64_t at, const void* from, int64_t bytes) override;
  // A place for the next call, once that of long ago is done.
  Call& next_call(Way& way);
  Tensor slot(const Way& way, size_t slot, int64_t bytes) const;
  void read_chunk(const Call& call);
  void write_chunk(const Call& call);

  OffloadFile file_;
  Way up_, down_;
};

}  // namespace mixtape::cuda
