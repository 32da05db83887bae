// A file on disk as the place of what is offloaded, read and written by one thread beside those that compute.
//
// The file has no name from the moment it is there, so that nothing is left of it however the process ends, and its
// room on the disk is taken before anything is written to it. It is read and written by pread and pwrite rather than
// mapped: a disk that fails is then an error with a reason, not a signal.
#pragma once

#include <array>
#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>

#include "core/offload.h"

namespace mixtape {

// Of memory of the host. Any thread may ask.
class OffloadFile final : public Offload {
 public:
  // Throws ConfigError if there is no such directory and none can be made, or not as much room on its disk.
  explicit OffloadFile(const OffloadRoom& room);
  ~OffloadFile() override;
  OffloadFile(const OffloadFile&) = delete;
  OffloadFile& operator=(const OffloadFile&) = delete;

  // These throw Error for this or an earlier request that has failed: what it was, and the system's reason.
  Ticket fetch(const Tensor& to, int64_t at) override;
  void wait(Ticket ticket) override;
  void store(int64_t at, const Tensor& from) override;
  void wait_for_stores() override;
  void finish() override;
  void check() override;
  void read(void* to, int64_t at, int64_t bytes) override;

  // A store that can be waited for as a fetch can.
  Ticket ask_to_store(int64_t at, const Tensor& from);
  int descriptor() const { return descriptor_; }  // for tests

 private:
  struct Request {
    bool writes = false;
    std::byte* memory = nullptr;
    int64_t at = 0, bytes = 0;
  };
  void host_write(int64_t at, const void* from, int64_t bytes) override;
  Ticket ask(const Request& request);
  void run();
  // The reason if it fails.
  std::string carry_out(const Request& request) const;

  const OffloadRoom room_;
  int descriptor_ = -1;
  std::mutex mutex_;
  std::condition_variable asked_changed_, done_changed_;
  std::array<Request, 64> requests_;                 // a ring: the steady state asks for no memory
  int64_t asked_ = 0, stores_asked_ = 0, done_ = 0;  // stores: up to the last of them
  std::string error_;  // of the first request that has failed; none is carried out after it
  bool ended_ = false;
  std::thread thread_;
};

}  // namespace mixtape
