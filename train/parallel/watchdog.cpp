#include "train/parallel/watchdog.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <utility>

#include "core/base/clock.h"
#include "core/base/error.h"

namespace mixtape {
namespace {

// Read by the watchdog's thread while the trainer's writes.
class Doing {
 public:
  struct What {
    const char* name;
    Phase::Kind kind;
  };
  // Returns what it was before.
  What set(What what) {
    const std::lock_guard lock(mutex_);
    since_ = Clock::now();
    return std::exchange(what_, what);
  }
  void set_step(int64_t step) {
    const std::lock_guard lock(mutex_);
    step_ = step;
  }
  int64_t step() {
    const std::lock_guard lock(mutex_);
    return step_;
  }
  void restart() {
    const std::lock_guard lock(mutex_);
    since_ = Clock::now();
  }
  std::pair<Phase::Kind, double> now() {
    const std::lock_guard lock(mutex_);
    return {what_.kind, seconds_since(since_)};
  }
  std::string text() {
    const std::lock_guard lock(mutex_);
    return fmt::format("{}, step {}", what_.name, step_);
  }

 private:
  std::mutex mutex_;
  What what_{"start", Phase::works};
  int64_t step_ = 0;
  Clock::time_point since_ = Clock::now();
};

Doing& doing() {
  static Doing of_this_process;
  return of_this_process;
}

struct Asked {
  std::mutex mutex;
  std::function<std::string()> fault;
  std::string now() {
    const std::lock_guard lock(mutex);
    return fault ? fault() : std::string();
  }
};
Asked& asked() {
  static Asked of_this_process;
  return of_this_process;
}

// "throw 3 data": in step 3, when data begins; "hang 3 data": there it goes on doing nothing.
void fail_as_asked(const std::string& asked, const char* phase, int64_t step) {
  const std::string here = fmt::format("{} {}", step, phase);
  if (asked == "throw " + here) throw Error("as {} asks", fault_variable);
  if (asked == "kill " + here) std::raise(SIGKILL);
  if (asked == "stop " + here) std::raise(SIGSTOP);
  while (asked == "hang " + here) std::this_thread::sleep_for(std::chrono::seconds(1));
}

}  // namespace

Phase::Phase(const char* name, Kind kind) {
  const auto before = doing().set({name, kind});
  before_ = before.name;
  kind_before_ = before.kind;
  static const char* const asked = std::getenv(fault_variable);
  if (asked) fail_as_asked(asked, name, doing().step());
}

// An error on its way keeps the phase that it comes from.
Phase::~Phase() {
  if (std::uncaught_exceptions() == 0) doing().set({before_, kind_before_});
}

void Phase::set_step(int64_t step) { doing().set_step(step); }
std::string Phase::text() { return doing().text(); }

Watchdog::Watchdog(Communicator& ranks, double timeout_seconds) : ranks_(ranks), timeout_(timeout_seconds) {
  thread_ = std::thread([this] { watch(); });
}

Watchdog::~Watchdog() {
  {
    const std::lock_guard lock(mutex_);
    ended_ = true;
  }
  ended_changed_.notify_all();
  thread_.join();
}

void Watchdog::ask(std::function<std::string()> fault) {
  const std::lock_guard lock(asked().mutex);
  asked().fault = std::move(fault);
}

void Watchdog::say(const std::string& what) const {
  std::fputs(fmt::format("mixtape: rank {} of {}: {}\n", ranks_.rank(), ranks_.size(), what).c_str(), stderr);
}

void Watchdog::watch() {
  const double look = std::min(1.0, timeout_ / 4), grace = std::clamp(timeout_ / 10, 1.0, 30.0);
  std::unique_lock lock(mutex_);
  for (Clock::time_point last = Clock::now();; last = Clock::now()) {
    if (ended_changed_.wait_for(lock, std::chrono::duration<double>(look), [&] { return ended_; })) return;
    // A process that was stopped and goes on is not to blame others for its own sleep.
    if (const double slept = seconds_since(last); slept > look + 2) {
      say(fmt::format("stood still for {:.0f} s (stopped, or without a core) in: {}", slept, Phase::text()));
      doing().restart();
      continue;
    }
    if (const std::string fault = asked().now(); !fault.empty()) {
      say(fmt::format("{}, in: {}", fault, Phase::text()));
      ranks_.abort(int(Exit::failure));
      return;
    }
    const auto [kind, seconds] = doing().now();
    if (seconds < timeout_ + (kind == Phase::waits ? grace : 0)) continue;
    say(fmt::format("no progress for {:.0f} s in: {}{}; parallel.timeout_seconds ends the job", seconds, Phase::text(),
                    kind == Phase::waits ? ", where it waits for the other ranks" : ""));
    // The others that wait are about to say so.
    if (kind == Phase::waits) std::this_thread::sleep_for(std::chrono::seconds(1));
    ranks_.abort(int(Exit::failure));
    return;
  }
}

}  // namespace mixtape
