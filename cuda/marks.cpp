#include "cuda/marks.h"

#include <vector>

#include "cuda/error.h"

namespace mixtape::cuda {

// Events are made once and used again.
struct Marks::State {
  Runtime& runtime;
  std::vector<cudaEvent_t> events;
  size_t used = 0;
};

Marks::Marks(Runtime& runtime) : state_(std::make_unique<State>(State{runtime, {}, 0})) {}
Marks::~Marks() {
  for (const cudaEvent_t event : state_->events) cudaEventDestroy(event);
}

int64_t Marks::mark() {
  State& s = *state_;
  if (s.used == s.events.size()) check(cudaEventCreate(&s.events.emplace_back()), "an event");
  check(cudaEventRecord(s.events[s.used], static_cast<cudaStream_t>(s.runtime.stream())), "a mark in the stream");
  return int64_t(s.used++);
}

double Marks::seconds_between(int64_t first, int64_t second) {
  float milliseconds = 0;
  check(cudaEventSynchronize(state_->events.at(size_t(second))), "waiting for a mark");
  check(cudaEventElapsedTime(&milliseconds, state_->events.at(size_t(first)), state_->events.at(size_t(second))),
        "the time between marks");
  return 1e-3 * double(milliseconds);
}

void Marks::forget() { state_->used = 0; }

}  // namespace mixtape::cuda
