// Ends a job of several processes when one of them makes no progress, and says which, where and in which step.
//
// A process says what it does by phases; a thread of its own looks at how long the last one has been going on. A rank
// that waits for others gives them a little longer, so that the one that is the cause speaks first; a rank that cannot
// speak (stopped, its machine gone) is the one missing among those that report that they wait.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

#include "core/communicator.h"

namespace mixtape {

// What this process does from now until the phase ends or another begins inside it; then what it did before, afresh.
class Phase {
 public:
  enum Kind { works, waits };
  explicit Phase(const char* name, Kind kind = works);  // `name`: a literal
  ~Phase();
  Phase(const Phase&) = delete;
  Phase& operator=(const Phase&) = delete;

  // The step that the phases from now on belong to.
  static void set_step(int64_t step);
  // "validation, step 120", for messages; of a thread that throws, where it has thrown.
  static std::string text();

 private:
  const char* before_;
  Kind kind_before_;
};

// In the environment of a process: where it is to fail, to see what that does to a job. "throw 3 checkpoint" is an
// error in step 3 at the beginning of that phase, "hang 3 forward and backward" a process that goes no further, "kill"
// and "stop" what these signals do.
inline constexpr const char* fault_variable = "MIXTAPE_FAULT";

class Watchdog {
 public:
  Watchdog(Communicator& ranks, double timeout_seconds);
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  // What the watchdog's thread asks meanwhile: what has gone wrong, in words, which ends the job; empty: nothing. One
  // at a time; null: nobody is asked.
  static void ask(std::function<std::string()> fault);

 private:
  void watch();
  void say(const std::string& what) const;

  Communicator& ranks_;
  double timeout_;
  std::mutex mutex_;
  std::condition_variable ended_changed_;
  bool ended_ = false;
  std::thread thread_;
};

}  // namespace mixtape
