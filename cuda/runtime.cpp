#include "cuda/runtime.h"

#include <nvtx3/nvToolsExt.h>

#include <array>
#include <vector>

#include "cuda/error.h"
#include "cuda/memory_use.h"
#include "cuda/staging.h"

namespace mixtape::cuda {

struct Runtime::State {
  std::array<cudaStream_t, queues> streams{};
  std::vector<cudaEvent_t> events;
  std::vector<cudaGraphExec_t> recordings;
  std::vector<void*> memory, pinned;
  std::string name;
  bool recording = false;

  cudaStream_t stream(Queue queue) const { return streams[size_t(queue)]; }
  int compute_capability = 0, multiprocessors = 0;
};

Runtime::Runtime(int device) : state_(std::make_unique<State>()) {
  check(cudaSetDevice(device), "choosing the device");
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, device), "the device's properties");
  state_->name = fmt::format("cuda:{} ({})", device, properties.name);
  state_->compute_capability = 10 * properties.major + properties.minor;
  state_->multiprocessors = properties.multiProcessorCount;
  for (cudaStream_t& stream : state_->streams)
    check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "a stream");
}

// Errors of the end have nobody to tell.
Runtime::~Runtime() {
  for (cudaStream_t stream : state_->streams) cudaStreamSynchronize(stream);
  for (cudaGraphExec_t recording : state_->recordings) cudaGraphExecDestroy(recording);
  for (cudaEvent_t event : state_->events) cudaEventDestroy(event);
  for (void* p : state_->memory) cudaFree(p);
  for (void* p : state_->pinned) cudaFreeHost(p);
  for (cudaStream_t stream : state_->streams) cudaStreamDestroy(stream);
}

std::string Runtime::name() const { return state_->name; }
int Runtime::compute_capability() const { return state_->compute_capability; }
int Runtime::multiprocessors() const { return state_->multiprocessors; }

void* Runtime::allocate(int64_t bytes) {
  void* p = nullptr;
  check(cudaMalloc(&p, size_t(bytes > 0 ? bytes : 1)), "device memory");
  state_->memory.push_back(p);
  return p;
}

int64_t memory_in_use(int device) {
  size_t free = 0, all = 0;
  check(cudaSetDevice(device), "choosing the device");
  check(cudaMemGetInfo(&free, &all), "the device's memory");
  return int64_t(all - free);
}

void* Runtime::allocate_pinned(int64_t bytes) {
  void* p = nullptr;
  check(cudaMallocHost(&p, size_t(bytes > 0 ? bytes : 1)), "pinned memory of the host");
  state_->pinned.push_back(p);
  return p;
}

void Runtime::copy(void* to, const void* from, int64_t bytes, Queue queue) {
  check(cudaMemcpyAsync(to, from, size_t(bytes), cudaMemcpyDefault, state_->stream(queue)), "a copy");
}

void Runtime::zero(void* to, int64_t bytes) {
  check(cudaMemsetAsync(to, 0, size_t(bytes), state_->stream(Queue::compute)), "zeroing memory");
}

void Runtime::call(void (*function)(void*), void* argument, Queue queue) {
  check(cudaLaunchHostFunc(state_->stream(queue), function, argument), "a call of the host");
}

void Runtime::synchronize() {
  for (cudaStream_t stream : state_->streams) check(cudaStreamSynchronize(stream), "waiting for the device");
}

// The host sleeps rather than spins while it waits: it has batches to make.
Event Runtime::make_event() {
  cudaEvent_t event = nullptr;
  check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming | cudaEventBlockingSync), "an event");
  state_->events.push_back(event);
  return Event(state_->events.size()) - 1;
}

void Runtime::record(Event event, Queue queue) {
  check(cudaEventRecord(state_->events[size_t(event)], state_->stream(queue)), "recording an event");
}
void Runtime::wait(Event event, Queue queue) {
  check(cudaStreamWaitEvent(state_->stream(queue), state_->events[size_t(event)], 0), "waiting for an event");
}
void Runtime::wait(Event event) {
  if (state_->recording) throw Error("cuda: the host waits for the device while its work is recorded");
  check(cudaEventSynchronize(state_->events[size_t(event)]), "waiting for the device");
}

void Runtime::begin_recording() {
  check(cudaStreamBeginCapture(state_->stream(Queue::compute), cudaStreamCaptureModeThreadLocal), "capturing a graph");
  state_->recording = true;
}

Recording Runtime::end_recording() {
  state_->recording = false;
  cudaGraph_t graph = nullptr;
  check(cudaStreamEndCapture(state_->stream(Queue::compute), &graph), "capturing a graph");
  cudaGraphExec_t recording = nullptr;
  const cudaError_t error = cudaGraphInstantiate(&recording, graph, 0);
  cudaGraphDestroy(graph);
  check(error, "making a graph");
  state_->recordings.push_back(recording);
  return Recording(state_->recordings.size()) - 1;
}

void Runtime::abandon_recording() {
  cudaGraph_t graph = nullptr;
  if (state_->recording && cudaStreamEndCapture(state_->stream(Queue::compute), &graph) == cudaSuccess)
    cudaGraphDestroy(graph);
  state_->recording = false;
  cudaGetLastError();  // what was refused has been told already
}

bool Runtime::recording() const { return state_->recording; }

void Runtime::replay(Recording recording) {
  check(cudaGraphLaunch(state_->recordings[size_t(recording)], state_->stream(Queue::compute)), "launching a graph");
}

void Runtime::begin_range(const std::string& name) { nvtxRangePushA(name.c_str()); }
void Runtime::end_range() { nvtxRangePop(); }

void* Runtime::stream(Queue queue) const { return state_->stream(queue); }

Devices find_devices() {
  Devices devices;
  int count = 0;
  if (const cudaError_t error = cudaGetDeviceCount(&count); error != cudaSuccess) {
    cudaGetLastError();
    devices.none_because = cudaGetErrorString(error);
    return devices;
  }
  for (int i = 0; i < count; ++i) {
    cudaDeviceProp p;
    check(cudaGetDeviceProperties(&p, i), "the device's properties");
    devices.names.push_back(fmt::format("{}, sm_{}{}, {:.0f} GiB", p.name, p.major, p.minor,
                                        double(p.totalGlobalMem) / (int64_t(1) << 30)));
  }
  if (count == 0) devices.none_because = "no CUDA-capable device is detected";
  return devices;
}

}  // namespace mixtape::cuda
