// Copies between any memory of the host and the device, through pinned memory.
//
// An upload is copied to a ring of pinned memory and queued, so the host goes on at once and never waits for the device
// unless the ring is full. While work is recorded the ring would be refilled between repetitions: what is uploaded then
// is copied to memory of the recording's own, and is the same at each repetition, like the arguments of kernels.
#pragma once

#include <deque>
#include <vector>

#include "cuda/runtime.h"

namespace mixtape::cuda {

class Staging {
 public:
  explicit Staging(Runtime& runtime) : runtime_(runtime) {}

  void upload(void* to, const void* from, int64_t bytes);
  void download(void* to, const void* from, int64_t bytes);

  // What recorded work that asks for the uploads made since `uploaded` was `before` needs as memory of its own.
  int64_t uploaded() const { return uploaded_; }
  void give_recording(int64_t bytes);

 private:
  // A piece of the ring on its way to the device.
  struct Piece {
    int64_t begin, end;
    Event sent;
  };
  std::byte* take(int64_t bytes);
  void upload_recorded(void* to, const void* from, int64_t bytes);

  Runtime& runtime_;
  std::byte *ring_ = nullptr, *bounce_ = nullptr;
  int64_t next_ = 0;  // the ring is free from here to the oldest piece
  std::deque<Piece> on_their_way_;
  std::vector<Event> idle_events_;
  int64_t uploaded_ = 0;  // bytes, with each upload rounded up

  std::byte* recording_ = nullptr;
  int64_t recording_left_ = 0;
};

}  // namespace mixtape::cuda
