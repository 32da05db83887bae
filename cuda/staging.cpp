#include "cuda/staging.h"

#include <algorithm>
#include <cstring>

#include "core/base/error.h"

namespace mixtape::cuda {
namespace {

constexpr int64_t ring_bytes = int64_t(8) << 20, largest_piece = ring_bytes / 4, alignment = 256;

int64_t rounded_up(int64_t bytes) { return (bytes + alignment - 1) / alignment * alignment; }

}  // namespace

// Memory of the ring for one piece. Pieces leave in the order in which they came.
std::byte* Staging::take(int64_t bytes) {
  if (!ring_) ring_ = static_cast<std::byte*>(runtime_.allocate_pinned(ring_bytes));
  if (next_ + bytes > ring_bytes) next_ = 0;
  const auto overlaps = [&](const Piece& p) { return p.begin < next_ + bytes && next_ < p.end; };
  while (std::any_of(on_their_way_.begin(), on_their_way_.end(), overlaps)) {
    runtime_.wait(on_their_way_.front().sent);
    idle_events_.push_back(on_their_way_.front().sent);
    on_their_way_.pop_front();
  }
  if (idle_events_.empty()) idle_events_.push_back(runtime_.make_event());
  on_their_way_.push_back({next_, next_ + bytes, idle_events_.back()});
  idle_events_.pop_back();
  next_ += bytes;
  return ring_ + on_their_way_.back().begin;
}

void Staging::upload(void* to, const void* from, int64_t bytes) {
  uploaded_ += rounded_up(bytes);
  if (runtime_.recording()) return upload_recorded(to, from, bytes);
  for (int64_t done = 0; done < bytes; done += largest_piece) {
    const int64_t n = std::min(largest_piece, bytes - done);
    std::byte* const pinned = take(rounded_up(n));
    std::memcpy(pinned, static_cast<const std::byte*>(from) + done, size_t(n));
    runtime_.copy(static_cast<std::byte*>(to) + done, pinned, n);
    runtime_.record(on_their_way_.back().sent, Queue::compute);
  }
}

void Staging::give_recording(int64_t bytes) {
  recording_ = bytes > 0 ? static_cast<std::byte*>(runtime_.allocate_pinned(bytes)) : nullptr;
  recording_left_ = bytes;
}

void Staging::upload_recorded(void* to, const void* from, int64_t bytes) {
  if (rounded_up(bytes) > recording_left_)
    throw Error("cuda: recorded work uploads more than it did when it ran before, so it is not the same work");
  std::memcpy(recording_, from, size_t(bytes));
  runtime_.copy(to, recording_, bytes);
  recording_ += rounded_up(bytes);
  recording_left_ -= rounded_up(bytes);
}

void Staging::download(void* to, const void* from, int64_t bytes) {
  if (runtime_.recording()) throw Error("cuda: the host waits for the device while work is recorded");
  if (!bounce_) bounce_ = static_cast<std::byte*>(runtime_.allocate_pinned(largest_piece));
  if (idle_events_.empty()) idle_events_.push_back(runtime_.make_event());
  const Event arrived = idle_events_.back();
  for (int64_t done = 0; done < bytes; done += largest_piece) {
    const int64_t n = std::min(largest_piece, bytes - done);
    runtime_.copy(bounce_, static_cast<const std::byte*>(from) + done, n);
    runtime_.record(arrived, Queue::compute);
    runtime_.wait(arrived);
    std::memcpy(static_cast<std::byte*>(to) + done, bounce_, size_t(n));
  }
}

Staging& Runtime::staging() {
  if (!staging_) staging_ = std::make_unique<Staging>(*this);
  return *staging_;
}
void Runtime::copy_to_device(void* to, const void* from, int64_t bytes) { staging().upload(to, from, bytes); }
void Runtime::copy_to_host(void* to, const void* from, int64_t bytes) { staging().download(to, from, bytes); }

}  // namespace mixtape::cuda
