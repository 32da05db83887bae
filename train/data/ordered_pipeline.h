// Items made by one thread, transformed by many, and consumed by the caller in the order in which they were made.
//
// At most `in_flight` items exist at a time, so memory is bounded however uneven the work is. The result does not
// depend on the number of workers.
#pragma once

#include <algorithm>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <map>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

namespace mixtape {

// make() -> std::optional<In>, empty at the end; transform(In&&) -> Out, from many threads; consume(Out&&), here.
// The first exception of any of them ends all threads and is thrown. Returns the most items that existed at a time.
template <class In, class Out>
class OrderedPipeline {
 public:
  OrderedPipeline(int workers, int in_flight) : workers_(std::max(workers, 1)), in_flight_(std::max(in_flight, 1)) {}

  template <class Make, class Transform, class Consume>
  int run(Make make, Transform transform, Consume consume) {
    std::vector<std::jthread> threads;  // joined on every way out
    threads.emplace_back([&] { guard([&] { produce(make); }); });
    guard([&] {
      for (int i = 0; i < workers_; ++i) threads.emplace_back([&] { guard([&] { work(transform); }); });
      while (std::optional<Out> out = take_next()) {
        consume(std::move(*out));
        const std::lock_guard lock(mutex_);
        --existing_;
        changed_.notify_all();
      }
    });
    threads.clear();
    if (error_) std::rethrow_exception(error_);
    return most_;
  }

 private:
  template <class F>
  void guard(F f) {
    try {
      f();
    } catch (...) {
      const std::lock_guard lock(mutex_);
      if (!error_) error_ = std::current_exception();
      changed_.notify_all();
    }
  }

  template <class Make>
  void produce(Make& make) {
    for (;;) {
      {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [&] { return existing_ < in_flight_ || error_; });
        if (error_) return;
        most_ = std::max(most_, ++existing_);
      }
      std::optional<In> item = make();
      const std::lock_guard lock(mutex_);
      changed_.notify_all();
      if (!item) {
        ended_ = true;
        return;
      }
      waiting_.emplace_back(made_++, std::move(*item));
    }
  }

  template <class Transform>
  void work(Transform& transform) {
    for (;;) {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return !waiting_.empty() || ended_ || error_; });
      if (error_ || waiting_.empty()) return;
      auto [number, item] = std::move(waiting_.front());
      waiting_.pop_front();
      lock.unlock();
      Out out = transform(std::move(item));
      lock.lock();
      done_.emplace(number, std::move(out));
      changed_.notify_all();
    }
  }

  std::optional<Out> take_next() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return done_.contains(consumed_) || (ended_ && consumed_ == made_) || error_; });
    if (error_ || !done_.contains(consumed_)) return std::nullopt;
    return std::move(done_.extract(consumed_++).mapped());
  }

  const int workers_, in_flight_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::pair<uint64_t, In>> waiting_;
  std::map<uint64_t, Out> done_;
  uint64_t made_ = 0, consumed_ = 0;
  int existing_ = 0, most_ = 0;
  bool ended_ = false;
  std::exception_ptr error_;
};

}  // namespace mixtape
