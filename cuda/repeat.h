// Work that is the same at each call: it runs as it is the first time, when libraries choose their algorithms and load
// what they need; the second time it is recorded; from then on the recording is replayed by one launch.
#pragma once

#include <functional>
#include <map>
#include <string>

#include "cuda/staging.h"

namespace mixtape::cuda {

class Repeater {
 public:
  // `refused` is told once why some work cannot be recorded; that work then always runs as it is.
  Repeater(Runtime& runtime, std::function<void(const std::string&)> refused)
      : runtime_(runtime), refused_(std::move(refused)) {}

  // `memory`: the bytes of the arena in use. Recorded work has its scratch memory wherever that was free, so what is
  // in use must not change.
  void repeat(int id, int64_t memory, const std::function<void()>& work);

 private:
  struct Work {
    enum { fresh, known, recorded, refused } state = fresh;
    int64_t uploads = 0, memory = 0;  // bytes
    Recording recording = 0;
  };
  void record(Work& entry, const std::function<void()>& work);

  Runtime& runtime_;
  std::function<void(const std::string&)> refused_;
  std::map<int, Work> works_;
};

}  // namespace mixtape::cuda
