// One thread that talks to the other ranks, while the step computes.
//
// Jobs run in the order in which they were posted, which is the same on all ranks. The calls of Communicator are posted
// too, and waited for: a communication thread stands in the place of the communicator that it uses, which nobody else
// may use meanwhile. So MPI has one caller at a time.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "core/communicator.h"

namespace mixtape {

// The calls of a communicator, posted and waited for.
class PostedCalls : public Communicator {
 public:
  void all_reduce(std::span<float> values) override;
  void all_reduce(std::span<int64_t> values) override;
  void all_to_all(std::span<const float> from, std::span<const int64_t> counts, std::span<float> to) override;
  void reduce_scatter(std::span<const float> from, std::span<const int64_t> counts, std::span<float> to) override;
  void all_gather(std::span<std::byte> all, std::span<const int64_t> bytes) override;
  void broadcast(std::span<std::byte> data, int root) override;
  void barrier() override;

 protected:
  virtual void do_now(const char* name, Job job) { wait(post(name, std::move(job))); }
};

class CommunicationThread final : public PostedCalls {
 public:
  explicit CommunicationThread(Communicator& ranks);
  // Waits for what was posted, unless a job has failed.
  ~CommunicationThread() override;

  int rank() const override { return ranks_.rank(); }
  int size() const override { return ranks_.size(); }
  int first_of_machine() const override { return ranks_.first_of_machine(); }
  // A group's jobs are this thread's, in the one order of posting.
  std::unique_ptr<Communicator> split(int group, int size) override;
  void abort(int exit_code) override { ranks_.abort(exit_code); }

  int64_t post(const char* name, Job job) override;
  void wait(int64_t job) override;

  // When jobs were posted, begun and done, by core/base/clock.h.
  struct Span {
    const char* name;
    double posted = 0, begun = 0, done = 0;
  };
  // Keeps them from now on, for take_trace().
  void trace() { traces_ = true; }
  std::vector<Span> take_trace();

 private:
  void run();

  struct Posted {
    Job job;
    Span span;
  };
  Communicator& ranks_;
  std::mutex mutex_;
  std::condition_variable posted_changed_, done_changed_;
  std::deque<Posted> queue_;
  int64_t posted_ = 0, done_ = 0;  // numbers of jobs
  std::exception_ptr error_;       // of the first job that has thrown; none runs after it
  bool ended_ = false;
  std::atomic<bool> traces_ = false;
  std::vector<Span> spans_;
  std::thread thread_;
};

}  // namespace mixtape
