#include "train/parallel/communication_thread.h"

#include <utility>

#include "core/base/clock.h"
#include "core/base/error.h"
#include "train/parallel/watchdog.h"

namespace mixtape {
namespace {

// Some of a thread's ranks.
class PostedGroup final : public PostedCalls {
 public:
  PostedGroup(Communicator& thread, std::unique_ptr<Communicator> ranks) : thread_(thread), ranks_(std::move(ranks)) {}
  int rank() const override { return ranks_->rank(); }
  int size() const override { return ranks_->size(); }
  std::unique_ptr<Communicator> split(int, int) override { throw Error("ranks: a group of a group"); }
  void abort(int exit_code) override { thread_.abort(exit_code); }
  int64_t post(const char* name, Job job) override {
    return thread_.post(name, [this, job = std::move(job)](Communicator&) { job(*ranks_); });
  }
  void wait(int64_t job) override { thread_.wait(job); }

 private:
  // In the middle of computing, which goes on when all of the group have come so far.
  void do_now(const char* name, Job job) override {
    const Phase phase("exchange in a group of ranks", Phase::waits);
    PostedCalls::do_now(name, std::move(job));
  }

  Communicator& thread_;
  std::unique_ptr<Communicator> ranks_;
};

}  // namespace

CommunicationThread::CommunicationThread(Communicator& ranks) : ranks_(ranks) {
  thread_ = std::thread([this] { run(); });
}

CommunicationThread::~CommunicationThread() {
  {
    const std::lock_guard lock(mutex_);
    ended_ = true;
  }
  posted_changed_.notify_all();
  thread_.join();
}

int64_t CommunicationThread::post(const char* name, Job job) {
  const std::lock_guard lock(mutex_);
  queue_.push_back({std::move(job), {.name = name, .posted = now_seconds()}});
  posted_changed_.notify_one();
  return ++posted_;
}

void CommunicationThread::wait(int64_t job) {
  std::unique_lock lock(mutex_);
  done_changed_.wait(lock, [&] { return done_ >= job || error_; });
  if (error_) std::rethrow_exception(error_);
}

void CommunicationThread::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    posted_changed_.wait(lock, [&] { return ended_ || !queue_.empty(); });
    if (queue_.empty() || error_) return;
    Posted next = std::move(queue_.front());
    queue_.pop_front();
    lock.unlock();
    next.span.begun = now_seconds();
    std::exception_ptr error;
    try {
      next.job(ranks_);
    } catch (...) {
      error = std::current_exception();
    }
    next.span.done = now_seconds();
    next.job = nullptr;
    lock.lock();
    if (traces_) spans_.push_back(next.span);
    error ? void(error_ = error) : void(++done_);
    done_changed_.notify_all();
  }
}

std::vector<CommunicationThread::Span> CommunicationThread::take_trace() {
  const std::lock_guard lock(mutex_);
  return std::exchange(spans_, {});
}

std::unique_ptr<Communicator> CommunicationThread::split(int group, int size) {
  std::unique_ptr<Communicator> ranks;
  wait(post("split", [&](Communicator& c) { ranks = c.split(group, size); }));
  return std::make_unique<PostedGroup>(*this, std::move(ranks));
}

void PostedCalls::all_reduce(std::span<float> values) {
  do_now("all-reduce", [=](Communicator& c) { c.all_reduce(values); });
}
void PostedCalls::all_reduce(std::span<int64_t> values) {
  do_now("all-reduce", [=](Communicator& c) { c.all_reduce(values); });
}
void PostedCalls::all_to_all(std::span<const float> from, std::span<const int64_t> counts, std::span<float> to) {
  do_now("all-to-all", [=](Communicator& c) { c.all_to_all(from, counts, to); });
}
void PostedCalls::reduce_scatter(std::span<const float> from, std::span<const int64_t> counts, std::span<float> to) {
  do_now("reduce-scatter", [=](Communicator& c) { c.reduce_scatter(from, counts, to); });
}
void PostedCalls::all_gather(std::span<std::byte> all, std::span<const int64_t> bytes) {
  do_now("all-gather", [=](Communicator& c) { c.all_gather(all, bytes); });
}
void PostedCalls::broadcast(std::span<std::byte> data, int root) {
  do_now("broadcast", [=](Communicator& c) { c.broadcast(data, root); });
}
void PostedCalls::barrier() {
  do_now("barrier", [](Communicator& c) { c.barrier(); });
}

}  // namespace mixtape
