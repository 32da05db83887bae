#include "cuda/marks.h"

#include <deque>

#include "core/base/clock.h"
#include "cuda/emulator/runtime.h"

namespace mixtape::cuda {

struct Marks::State {
  Runtime& runtime;
  std::deque<double> moments;  // which queued work writes to: they must not move
};

Marks::Marks(Runtime& runtime) : state_(new State{runtime, {}}) {}
Marks::~Marks() = default;

int64_t Marks::mark() {
  double& moment = state_->moments.emplace_back();
  emulator::queue(state_->runtime, [&moment] { moment = now_seconds(); });
  return int64_t(state_->moments.size()) - 1;
}

double Marks::seconds_between(int64_t first, int64_t second) {
  state_->runtime.synchronize();
  return state_->moments.at(size_t(second)) - state_->moments.at(size_t(first));
}

void Marks::forget() {
  state_->runtime.synchronize();
  state_->moments.clear();
}

}  // namespace mixtape::cuda
