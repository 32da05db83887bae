// Memory outside of the device's, from which parts come to be computed with and to which they go back, beside what the
// device computes: of a CPU a file on disk (cpu/offload_file.h), of a GPU memory of the host (cuda/offload.h).
//
// Fetches and stores are queued and happen in the order in which they were asked for, as far as they touch the same
// bytes. Who has two tensors can compute with one while the other goes out and comes back (state_stage.h).
#pragma once

#include <cstdint>

#include "core/tensor.h"

namespace mixtape {

class Offload {
 public:
  using Ticket = int64_t;  // a place in the order of fetches
  virtual ~Offload() = default;

  // Queued: `to`, contiguous, becomes the bytes from `at` on, as of the stores before. Nothing may touch it until
  // wait().
  virtual Ticket fetch(const Tensor& to, int64_t at) = 0;
  // Whatever is asked of the device from now on finds what that fetch, and all before it, have brought.
  virtual void wait(Ticket ticket) = 0;
  // Queued: the bytes from `at` on become those of `from` after all that the device has been asked for. Nothing but a
  // later fetch may touch `from` then.
  virtual void store(int64_t at, const Tensor& from) = 0;

  // Waits for all that is queued.
  virtual void finish() = 0;

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

}  // namespace mixtape
