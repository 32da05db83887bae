// One device as the back end uses it: its memory, queues of work, events between them, and recorded work.
//
// runtime.cpp is CUDA's, where a queue is a stream and recorded work a graph. emulator/runtime.cpp is the host, where
// what is queued runs at once, or, as tests want it, as late as a device may run it (cuda/emulator/runtime.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace mixtape::cuda {

// Kernels and their copies run in `compute`, in order. `upload` carries inputs and offloaded state meanwhile,
// `download` takes that state back, and `communication` what goes to other GPUs; only events order them.
enum class Queue { compute, upload, communication, download };
inline constexpr int queues = 4;
using Event = int;      // of a runtime; marks a place in a queue, once recorded
using Recording = int;  // of a runtime

class Staging;

class Runtime {
 public:
  explicit Runtime(int device);
  ~Runtime();
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

  std::string name() const;
  int compute_capability() const;  // 10 major + minor
  int multiprocessors() const;
  // Memory of the device, and of the host in a place from which a queue can copy; both are kept until the runtime ends.
  void* allocate(int64_t bytes);
  void* allocate_pinned(int64_t bytes);

  // Queued. Host memory must be pinned, and stay as it is until the queue has come this far.
  void copy(void* to, const void* from, int64_t bytes, Queue queue = Queue::compute);
  void zero(void* to, int64_t bytes);
  // Queued: the host calls it when the queue has come this far, in a thread of the driver's, which may wait but must
  // not ask the device for anything. What `argument` points to must be there then.
  void call(void (*function)(void* argument), void* argument, Queue queue);
  // Between any memory of the host and the device, in the order of `compute`: what `from` and `to` hold on the host is
  // read, or there, when these return. The first does not wait for the device (staging.h).
  void copy_to_device(void* to, const void* from, int64_t bytes);
  void copy_to_host(void* to, const void* from, int64_t bytes);
  Staging& staging();
  // Waits for everything.
  void synchronize();

  Event make_event();
  void record(Event event, Queue queue);
  // What is queued from now on waits for the place that the event was last recorded at; or the host does. An event that
  // was never recorded holds up nobody.
  void wait(Event event, Queue queue);
  void wait(Event event);

  // What is asked of `compute` between these two is recorded and does not run. Whatever cannot be (waiting, another
  // queue) throws Error; the recording is then to be abandoned.
  void begin_recording();
  Recording end_recording();
  void abandon_recording();
  bool recording() const;
  // Queues what was recorded: the same kernels with the same arguments.
  void replay(Recording recording);

  // For the profiler.
  void begin_range(const std::string& name);
  void end_range();

  // cudaStream_t; null on the host.
  void* stream(Queue queue = Queue::compute) const;
  // For the emulator's launches.
  struct State;
  State& state() { return *state_; }

 private:
  std::unique_ptr<State> state_;
  std::unique_ptr<Staging> staging_;
};

// The devices of this machine; if there are none, why.
struct Devices {
  std::vector<std::string> names;
  std::string none_because;
};
Devices find_devices();

}  // namespace mixtape::cuda
