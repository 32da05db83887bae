#include "cuda/repeat.h"

#include "core/base/error.h"

namespace mixtape::cuda {

void Repeater::repeat(int id, int64_t memory, const std::function<void()>& work) {
  Work& entry = works_[id];
  if (entry.state == Work::fresh) entry.memory = memory;
  if (entry.memory != memory)
    throw Error("cuda: work {} is repeated with {} bytes in use, and had {} at first", id, memory, entry.memory);
  switch (entry.state) {
    case Work::fresh: {
      const int64_t before = runtime_.staging().uploaded();
      work();
      entry.uploads = runtime_.staging().uploaded() - before;
      entry.state = Work::known;
      return;
    }
    case Work::known:
      record(entry, work);
      return entry.state == Work::recorded ? runtime_.replay(entry.recording) : work();
    case Work::recorded:
      return runtime_.replay(entry.recording);
    case Work::refused:
      return work();
  }
}

void Repeater::record(Work& entry, const std::function<void()>& work) {
  runtime_.staging().give_recording(entry.uploads);
  try {
    runtime_.begin_recording();
    work();
    entry.recording = runtime_.end_recording();
    entry.state = Work::recorded;
  } catch (const Error& error) {
    runtime_.abandon_recording();
    entry.state = Work::refused;
    refused_(error.what());
  }
}

}  // namespace mixtape::cuda
