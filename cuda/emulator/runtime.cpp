// The device is the host: its memory is the host's, its queues are lists of functions.
#include "cuda/emulator/runtime.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <deque>
#include <optional>
#include <utility>

#include "core/memory.h"
#include "cuda/emulator/device.h"
#include "cuda/emulator/threads.h"
#include "cuda/memory_use.h"
#include "cuda/staging.h"

namespace mixtape::emulator {
namespace {
bool late = false;
LeftOut mistake = LeftOut::nothing;
HostCounts counted;
}  // namespace

void run_late(bool value) { late = value; }
bool runs_late() { return late; }
void leave_out(LeftOut value) { mistake = value; }
HostCounts host_counts() { return counted; }

DeviceProperties& device() {
  static DeviceProperties properties;
  return properties;
}
}  // namespace mixtape::emulator

namespace mixtape::cuda {

using emulator::LeftOut;

struct Runtime::State {
  const emulator::DeviceProperties properties = emulator::device();
  using Reached = std::shared_ptr<bool>;  // whether a place in a queue has been reached
  struct Operation {
    std::function<void()> run;
    Reached after = nullptr;  // may not run before
  };

  std::deque<HostMemory> memory;
  int64_t allocated = 0;  // of the device
  std::array<std::deque<Operation>, cuda::queues> queues;
  std::vector<Reached> events;  // as last recorded; null: never
  std::vector<std::vector<std::function<void()>>> recordings;
  std::optional<std::vector<std::function<void()>>> being_recorded;
  const bool late = emulator::late;
  uint64_t random = emulator::seed() * 2654435761u + 1;

  void queue(Queue to, Operation operation) {
    if (being_recorded) {
      if (to != Queue::compute || operation.after) refuse("another queue is asked for");
      being_recorded->push_back(std::move(operation.run));
      return;
    }
    queues[size_t(to)].push_back(std::move(operation));
    if (!late) run_all();
  }
  [[noreturn]] static void refuse(const char* what) { throw Error("cuda: {} while work is recorded", what); }

  size_t draw(size_t below) {  // xorshift64*
    random ^= random >> 12;
    random ^= random << 25;
    random ^= random >> 27;
    return size_t(((random * 0x2545F4914F6CDD1Dull) >> 32) * below >> 32);
  }
  // One operation of a queue whose turn is drawn.
  void run_one() {
    const size_t first = draw(queues.size());
    for (size_t i = 0; i < queues.size(); ++i) {
      std::deque<Operation>& queue = queues[(first + i) % queues.size()];
      if (queue.empty() || (queue.front().after && !*queue.front().after)) continue;
      const Operation next = std::move(queue.front());
      queue.pop_front();
      return next.run();
    }
    throw Error("cuda, emulated: the queues wait for each other");
  }
  void wait_until(const bool& reached) {
    if (!reached) ++emulator::counted.waits;
    while (!reached) run_one();
  }
  void run_all() {
    while (!std::ranges::all_of(queues, &std::deque<Operation>::empty)) run_one();
  }
};

namespace {
std::atomic<int64_t> bytes_in_use = 0;
}

Runtime::Runtime(int) : state_(std::make_unique<State>()) {}
Runtime::~Runtime() { bytes_in_use -= state_->allocated; }

std::string Runtime::name() const { return "cuda, emulated"; }
int Runtime::compute_capability() const { return state_->properties.compute_capability; }
int Runtime::multiprocessors() const { return state_->properties.multiprocessors; }
void* Runtime::allocate(int64_t bytes) {
  state_->allocated += bytes;
  bytes_in_use += bytes;
  return state_->memory.emplace_back(bytes).data();
}
void* Runtime::allocate_pinned(int64_t bytes) { return state_->memory.emplace_back(bytes).data(); }
int64_t memory_in_use(int) { return bytes_in_use; }

void Runtime::copy(void* to, const void* from, int64_t bytes, Queue queue) {
  state_->queue(queue, {[=] { std::memcpy(to, from, size_t(bytes)); }});
}
void Runtime::zero(void* to, int64_t bytes) {
  state_->queue(Queue::compute, {[=] { std::memset(to, 0, size_t(bytes)); }});
}
void Runtime::call(void (*function)(void*), void* argument, Queue queue) {
  state_->queue(queue, {[=] { function(argument); }});
}
void Runtime::synchronize() {
  if (recording()) State::refuse("the host waits for the device");
  ++emulator::counted.waits;
  state_->run_all();
}

Event Runtime::make_event() {
  state_->events.emplace_back();
  return Event(state_->events.size()) - 1;
}
void Runtime::record(Event event, Queue queue) {
  if (recording()) State::refuse("an event is recorded");
  const auto reached = state_->events[size_t(event)] = std::make_shared<bool>(false);
  state_->queue(queue, {[reached] { *reached = true; }});
}
void Runtime::wait(Event event, Queue queue) {
  if (recording()) State::refuse("an event is waited for");
  const State::Reached reached = state_->events[size_t(event)];
  static constexpr LeftOut of_queue[] = {LeftOut::waits_of_compute, LeftOut::waits_of_upload,
                                         LeftOut::waits_of_communication, LeftOut::waits_of_download};
  if (emulator::mistake == of_queue[size_t(queue)]) return;
  if (reached) state_->queue(queue, {[] {}, reached});
}
void Runtime::wait(Event event) {
  if (recording()) State::refuse("the host waits for the device");
  const State::Reached reached = state_->events[size_t(event)];
  if (emulator::mistake == LeftOut::waits_of_host) return;
  if (reached) state_->wait_until(*reached);
}

void Runtime::begin_recording() { state_->being_recorded.emplace(); }
Recording Runtime::end_recording() {
  state_->recordings.push_back(*std::exchange(state_->being_recorded, std::nullopt));
  return Recording(state_->recordings.size()) - 1;
}
void Runtime::abandon_recording() { state_->being_recorded.reset(); }
bool Runtime::recording() const { return state_->being_recorded.has_value(); }
void Runtime::replay(Recording recording) {
  ++emulator::counted.replays;
  for (const auto& run : state_->recordings[size_t(recording)]) state_->queue(Queue::compute, {run});
}

void Runtime::begin_range(const std::string&) {}
void Runtime::end_range() {}
void* Runtime::stream(Queue) const { return nullptr; }

Devices find_devices() {
  return {.names = {size_t(emulator::device().devices), "emulated on the host, for tests"}, .none_because = ""};
}

}  // namespace mixtape::cuda

void mixtape::emulator::queue(cuda::Runtime& runtime, std::function<void()> operation, cuda::Queue queue) {
  runtime.state().queue(queue, {std::move(operation)});
}
