#include "train/signals.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>

namespace mixtape {
namespace {

std::atomic<int> signal_received{0};
static_assert(std::atomic<int>::is_always_lock_free);  // so that a handler may touch it

void handle(int signal) {
  // A person who presses Ctrl-C again does not want to wait. A scheduler's USR1 may come many times.
  if (signal_received.exchange(signal) != 0 && signal != SIGUSR1) _exit(128 + signal);
}

constexpr int handled[] = {SIGINT, SIGTERM, SIGUSR1};
struct sigaction previous[3];

}  // namespace

StopSignals::StopSignals() {
  signal_received = 0;
  struct sigaction action {};
  action.sa_handler = handle;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  for (int i = 0; i < 3; ++i) sigaction(handled[i], &action, &previous[i]);
}

StopSignals::~StopSignals() {
  for (int i = 0; i < 3; ++i) sigaction(handled[i], &previous[i], nullptr);
}

int StopSignals::received() { return signal_received; }

}  // namespace mixtape
