// SIGINT, SIGTERM and SIGUSR1: finish the step, save, exit 75. A second SIGINT or SIGTERM exits at once.
#pragma once

namespace mixtape {

// Installs the handlers while it lives.
class StopSignals {
 public:
  StopSignals();
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  // The signal that asks for an end, or 0.
  static int received();
};

}  // namespace mixtape
