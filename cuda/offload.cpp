#include "cuda/offload.h"

#include <algorithm>
#include <cstring>

namespace mixtape::cuda {
namespace {

std::byte* pinned(Runtime& runtime, int64_t bytes) {
  try {
    return static_cast<std::byte*>(runtime.allocate_pinned(bytes));
  } catch (const Error& error) {
    throw ConfigError(
        "memory.offload: {:.1f} MiB of pinned memory of the host for the optimizer's state: {}; set it to "
        "none",
        double(bytes) / (1 << 20), error.what());
  }
}

}  // namespace

PinnedOffload::PinnedOffload(Runtime& runtime, int64_t bytes)
    : runtime_(runtime),
      memory_(pinned(runtime, bytes)),
      computed_(runtime.make_event()),
      stored_(runtime.make_event()) {
  for (Event& event : fetched_) event = runtime.make_event();
  std::memset(memory_, 0, size_t(bytes));
}

Offload::Ticket PinnedOffload::fetch(const Tensor& to, int64_t at) {
  runtime_.wait(stored_, Queue::upload);
  runtime_.copy(to.raw(), memory_ + at, to.bytes(), Queue::upload);
  runtime_.record(fetched_[size_t(next_ % remembered)], Queue::upload);
  return next_++;
}

void PinnedOffload::wait(Ticket ticket) {
  const Ticket behind = std::clamp(ticket, std::max<Ticket>(0, next_ - remembered), std::max<Ticket>(0, next_ - 1));
  runtime_.wait(fetched_[size_t(behind % remembered)], Queue::compute);
}

void PinnedOffload::store(int64_t at, const Tensor& from) {
  runtime_.record(computed_, Queue::compute);
  runtime_.wait(computed_, Queue::download);
  runtime_.copy(memory_ + at, from.raw(), from.bytes(), Queue::download);
  runtime_.record(stored_, Queue::download);
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
