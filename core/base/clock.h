// Time that passes, in seconds, on a clock that nobody sets.
#pragma once

#include <chrono>

namespace mixtape {

using Clock = std::chrono::steady_clock;

inline double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Since some fixed instant.
inline double now_seconds() { return std::chrono::duration<double>(Clock::now().time_since_epoch()).count(); }

}  // namespace mixtape
