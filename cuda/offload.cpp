#include "cuda/offload.h"

#include <algorithm>
#include <cstring>

namespace mixtape::cuda {

QueuedOffload::QueuedOffload(Runtime& runtime)
    : runtime_(runtime), computed_(runtime.make_event()), stored_(runtime.make_event()) {
  for (Event& event : fetched_) event = runtime.make_event();
}

Offload::Ticket QueuedOffload::fetch(const Tensor& to, int64_t at) {
  check();
  runtime_.record(computed_, Queue::compute);
  runtime_.wait(computed_, Queue::upload);
  runtime_.wait(stored_, Queue::upload);
  bring(to, at);
  runtime_.record(fetched_[size_t(next_ % remembered)], Queue::upload);
  return next_++;
}

void QueuedOffload::wait(Ticket ticket) {
  const Ticket behind = std::clamp(ticket, std::max<Ticket>(0, next_ - remembered), std::max<Ticket>(0, next_ - 1));
  runtime_.wait(fetched_[size_t(behind % remembered)], Queue::compute);
}

void QueuedOffload::store(int64_t at, const Tensor& from) {
  check();
  runtime_.record(computed_, Queue::compute);
  runtime_.wait(computed_, Queue::download);
  take(at, from);
  runtime_.record(stored_, Queue::download);
}

void QueuedOffload::wait_for_stores() { runtime_.wait(stored_, Queue::compute); }

namespace {

std::byte* pinned(Runtime& runtime, const OffloadRoom& room) {
  try {
    return static_cast<std::byte*>(runtime.allocate_pinned(room.bytes));
  } catch (const Error& error) {
    throw ConfigError(
        "memory.offload: {:.1f} MiB of pinned memory of the host for {}: {}; set it to none, or "
        "memory.offload_directory to a directory on a local disk",
        double(room.bytes) / (1 << 20), room.what, error.what());
  }
}

}  // namespace

PinnedOffload::PinnedOffload(Runtime& runtime, const OffloadRoom& room)
    : QueuedOffload(runtime), memory_(pinned(runtime, room)) {
  std::memset(memory_, 0, size_t(room.bytes));
}

void PinnedOffload::bring(const Tensor& to, int64_t at) {
  runtime_.copy(to.raw(), memory_ + at, to.bytes(), Queue::upload);
}

void PinnedOffload::take(int64_t at, const Tensor& from) {
  runtime_.copy(memory_ + at, from.raw(), from.bytes(), Queue::download);
}

void PinnedOffload::read(void* to, int64_t at, int64_t bytes) {
  finish();
  std::memcpy(to, memory_ + at, size_t(bytes));
}

void PinnedOffload::host_write(int64_t at, const void* from, int64_t bytes) {
  finish();
  std::memcpy(memory_ + at, from, size_t(bytes));
}

}  // namespace mixtape::cuda
