// Memory outside of the device's, from which tensors come to be computed with and to which they go back, beside what
// the device computes: a file on disk (offload_file.h), or of a GPU memory of the host (cuda/offload.h) or a file
// (cuda/offload_to_disk.h).
//
// Fetches and stores are queued and happen in the order in which they were asked for, as far as they touch the same
// bytes. Who has two places in the device's memory can compute with one while the other goes out and comes back: the
// optimizer's state (state_stage.h), and what backward will read (saved_tensors.h).
#pragma once

#include <cstdint>
#include <string>

#include "core/tensor.h"

namespace mixtape {

class Offload {
 public:
  using Ticket = int64_t;  // a place in the order of fetches
  virtual ~Offload() = default;

  // Queued, after all that the device has been asked for, which may use the same memory: `to`, contiguous, becomes the
  // bytes from `at` on, as of the stores before. Nothing may touch it until wait().
  virtual Ticket fetch(const Tensor& to, int64_t at) = 0;
  // Whatever is asked of the device from now on finds what that fetch, and all before it, have brought.
  virtual void wait(Ticket ticket) = 0;
  // Queued: the bytes from `at` on become those of `from` after all that the device has been asked for. Until
  // wait_for_stores() nothing but a later fetch may write to `from`.
  virtual void store(int64_t at, const Tensor& from) = 0;
  // Whatever is asked of the device from now on may write to what stores so far are taken from.
  virtual void wait_for_stores() = 0;

  // Waits for all that is queued.
  virtual void finish() = 0;
  // Throws Error if something that was queued has failed, as any of the others may. What was fetched is right if this
  // does not throw after the device has used it.
  virtual void check() {}

  // By the host, behind all that is queued, which it waits for. Before the first write everything is 0.
  virtual void read(void* to, int64_t at, int64_t bytes) = 0;
  void write(int64_t at, const void* from, int64_t bytes) {
    ++writes_;
    host_write(at, from, bytes);
  }
  // How often the host has written: what was fetched before that may be old.
  int64_t writes() const { return writes_; }

 private:
  virtual void host_write(int64_t at, const void* from, int64_t bytes) = 0;
  int64_t writes_ = 0;
};

// Where what is offloaded is kept: in a file in this directory, which need not exist yet; or, of a GPU unless it is to
// be on disk, in memory of the host.
struct OffloadPlace {
  std::string directory = {};
  bool on_disk = false;
};

// What is asked of a device: `what` for errors, such as "the optimizer's state".
struct OffloadRoom {
  std::string what;
  int64_t bytes = 0;
  OffloadPlace place = {};
};

// Tensors outside begin with a page each, so that no two share one.
inline int64_t offload_room(int64_t bytes) {
  constexpr int64_t page = 4096;
  return (bytes + page - 1) / page * page;
}

}  // namespace mixtape
