// Timing on a machine that others may use: probes, and what they say about a sample.
//
// Two virtual cores can share a physical one, mostly after an idle phase, and then compute at half the rate with no
// other sign of it. So every core is kept busy before a sample, and the rate of fused multiply-adds is measured before
// and after it. A sample counts only if both probes are within 15 % of the best seen in the process. What runs on
// another device is timed without probes: its clock is its own, and nobody shares it.
#pragma once

#include <functional>
#include <vector>

namespace mixtape {

struct TimeSample {
  double seconds = 0;
  double probe_before = 0, probe_after = 0;  // FLOP/s
};

struct Timing {
  double median = 0, least = 0, most = 0;  // seconds, of the samples that count
  int counted = 0, dropped = 0;
  // Fewer than half of the samples count: figures from such a machine say little. With none that counts, all are used.
  bool disturbed = false;
};

inline constexpr double probe_tolerance = 0.15;

// `best_probe`: the best rate ever seen.
Timing summarise(const std::vector<TimeSample>& samples, double best_probe);

class SteadyTimer {
 public:
  explicit SteadyTimer(bool probes = true) : probes_(probes) {}

  // Runs `work` until `wanted` samples count, or three times as many have been taken. All that were taken.
  std::vector<TimeSample> samples(int wanted, const std::function<void()>& work, double busy_seconds = 0.1);
  Timing time(int wanted, const std::function<void()>& work, double busy_seconds = 0.1);
  // Calls `work` often enough that a sample takes `least_seconds`; the figures are for one call.
  Timing time_short(int wanted, const std::function<void()>& work, double least_seconds = 0.02);
  double best_probe() const { return best_probe_; }

 private:
  double probe();
  bool probes_;
  double best_probe_ = 0;
};

}  // namespace mixtape
