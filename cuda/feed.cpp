#include "cuda/feed.h"

namespace mixtape::cuda {

DoubleFeed::DoubleFeed(const Backend& backend, Runtime& runtime, const Tensor& block)
    : runtime_(runtime), block_(block) {
  for (Slot& slot : slots_) {
    slot.device = backend.make(block.shape(), block.dtype(), Category::batch);
    if (backend.planning()) continue;
    slot.pinned = static_cast<std::byte*>(runtime.allocate_pinned(block.bytes()));
    slot.sent = runtime.make_event();
    slot.taken = runtime.make_event();
  }
}

std::byte* DoubleFeed::fill() {
  Slot& slot = slots_[next_];
  if (slot.pinned) runtime_.wait(slot.sent);
  return slot.pinned;
}

void DoubleFeed::send() {
  Slot& slot = slots_[next_];
  if (!slot.pinned) return;
  next_ = 1 - next_;
  runtime_.wait(slot.taken, Queue::upload);
  runtime_.copy(slot.device.raw(), slot.pinned, block_.bytes(), Queue::upload);
  runtime_.record(slot.sent, Queue::upload);
  runtime_.wait(slot.sent, Queue::compute);
  runtime_.copy(block_.raw(), slot.device.raw(), block_.bytes(), Queue::compute);
  runtime_.record(slot.taken, Queue::compute);
}

}  // namespace mixtape::cuda
