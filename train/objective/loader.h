// Makes the batches of coming steps in a background thread, so that a step finds its data ready.
//
//   Loader loader(objective, {.micro_batch_size = 4, .global_batch_size = 32, .first_sample = trainer.samples_seen});
//   const GlobalBatch& batch = loader.next();   // valid until the next call
//
// Which samples a step gets depends on its first sample alone: it takes the next global_batch_size from there (or as
// many as batch_size_at says), cut into micro-batches in order; rank r of W owns the r-th of W runs of micro-batches,
// equal ones where W divides their number, or where ranks take turns micro-batch r and each W-th after it. Threads and
// depth change nothing.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "train/objective/objective.h"

namespace mixtape {

struct LoaderOptions {
  int micro_batch_size = 1;   // samples of a micro-batch
  int global_batch_size = 1;  // samples of a step, over all ranks; a multiple of micro_batch_size * world
  // Of a batch that changes: its samples, by the first of them; a multiple of micro_batch_size up to global_batch_size.
  std::function<int64_t(uint64_t)> batch_size_at = nullptr;
  uint64_t first_sample = 0;
  int rank = 0, world = 1;
  bool in_turns = false;
  int depth = 3;  // steps prepared ahead
};

class Loader {
 public:
  // `objective` must outlive the loader. Throws ConfigError for sizes that do not divide.
  Loader(const Objective& objective, const LoaderOptions& options);
  ~Loader();
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;

  // The next step's batch; valid until the next call. An error of the background thread is thrown here, at the step
  // that it concerns, and again on every later call.
  const GlobalBatch& next();
  // Time that next() spent waiting for data, since the start.
  double stall_seconds() const { return stall_seconds_; }

 private:
  void run();
  void fill(uint64_t first_sample, int64_t samples, GlobalBatch& batch) const;

  const Objective& objective_;
  const LoaderOptions options_;
  std::vector<GlobalBatch> ring_;  // slot of step k: k % size
  std::mutex mutex_;
  std::condition_variable filled_changed_, taken_changed_;
  uint64_t filled_ = 0;    // steps made
  uint64_t released_ = 0;  // steps whose slot may be overwritten
  uint64_t taken_ = 0;     // steps handed out; only next() uses it
  std::exception_ptr error_;
  bool stop_ = false;
  double stall_seconds_ = 0;
  std::thread thread_;
};

}  // namespace mixtape
