#include "cuda/offload_to_disk.h"

#include <algorithm>

namespace mixtape::cuda {

OffloadToDisk::OffloadToDisk(Runtime& runtime, const OffloadRoom& room) : QueuedOffload(runtime), file_(room) {
  for (Way* way : {&up_, &down_})
    for (std::byte*& slot : way->slots)
      slot = static_cast<std::byte*>(runtime.allocate_pinned(std::min(chunk_bytes, std::max<int64_t>(room.bytes, 1))));
}

// The queues call what is about to end.
OffloadToDisk::~OffloadToDisk() {
  try {
    runtime_.synchronize();
  } catch (const Error&) {  // a device that has failed calls nothing
  }
}

OffloadToDisk::Call& OffloadToDisk::next_call(Way& way) {
  if (way.asked - way.done.load() >= int64_t(way.calls.size())) runtime_.synchronize();
  Call& call = way.calls[size_t(way.asked++) % way.calls.size()];
  call = {.self = this};
  return call;
}

Tensor OffloadToDisk::slot(const Way& way, size_t slot, int64_t bytes) const {
  return {way.slots[slot], {bytes}, DType::u8};
}

void OffloadToDisk::bring(const Tensor& to, int64_t at) {
  const int64_t bytes = to.bytes();
  for (int64_t done = 0; done < bytes; done += chunk_bytes) {
    const int64_t n = std::min(chunk_bytes, bytes - done);
    Call& call = next_call(up_);
    call.slot = size_t(up_.asked % 2), call.at = at + done, call.bytes = n;
    call.next_bytes = std::min(chunk_bytes, bytes - done - n);
    call.first = done == 0;
    const auto read = [](void* c) { static_cast<Call*>(c)->self->read_chunk(*static_cast<Call*>(c)); };
    runtime_.call(read, &call, Queue::upload);
    runtime_.copy(to.raw() + done, up_.slots[call.slot], n, Queue::upload);
  }
}

void OffloadToDisk::take(int64_t at, const Tensor& from) {
  const int64_t bytes = from.bytes();
  for (int64_t done = 0; done < bytes; done += chunk_bytes) {
    Call& call = next_call(down_);
    call.slot = size_t(down_.asked % 2), call.at = at + done, call.bytes = std::min(chunk_bytes, bytes - done);
    runtime_.copy(down_.slots[call.slot], from.raw() + done, call.bytes, Queue::download);
    const auto write = [](void* c) { static_cast<Call*>(c)->self->write_chunk(*static_cast<Call*>(c)); };
    runtime_.call(write, &call, Queue::download);
  }
}

// The other slot is free, since the queue has copied what was in it. A request that fails is remembered by the file.
void OffloadToDisk::read_chunk(const Call& call) {
  try {
    const size_t other = 1 - call.slot;
    if (call.first) up_.tickets[call.slot] = file_.fetch(slot(up_, call.slot, call.bytes), call.at);
    if (call.next_bytes > 0) up_.tickets[other] = file_.fetch(slot(up_, other, call.next_bytes), call.at + call.bytes);
    file_.wait(up_.tickets[call.slot]);
  } catch (const Error&) {
  }
  ++up_.done;
}

// The queue fills the other slot next.
void OffloadToDisk::write_chunk(const Call& call) {
  try {
    down_.tickets[call.slot] = file_.ask_to_store(call.at, slot(down_, call.slot, call.bytes));
    file_.wait(down_.tickets[1 - call.slot]);
  } catch (const Error&) {
  }
  ++down_.done;
}

void OffloadToDisk::finish() {
  runtime_.synchronize();
  file_.finish();
}

void OffloadToDisk::read(void* to, int64_t at, int64_t bytes) {
  finish();
  file_.read(to, at, bytes);
}

void OffloadToDisk::host_write(int64_t at, const void* from, int64_t bytes) {
  finish();
  file_.write(at, from, bytes);
}

}  // namespace mixtape::cuda
