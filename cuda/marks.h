// Moments in the order of a stream's work, by the device's clock: events of CUDA (marks.cpp), or the host's clock
// (emulator/marks.cpp).
#pragma once

#include <cstdint>
#include <memory>

#include "cuda/runtime.h"

namespace mixtape::cuda {

class Marks {
 public:
  explicit Marks(Runtime& runtime);
  ~Marks();

  int64_t mark();
  // Waits for `second`.
  double seconds_between(int64_t first, int64_t second);
  // The next mark is number 0 again.
  void forget();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace mixtape::cuda
