#include "train/bench/steady.h"

#include <algorithm>
#include <cmath>

#include "core/base/clock.h"
#include "core/cpu/probe.h"

namespace mixtape {
namespace {

bool counts(const TimeSample& s, double best_probe) {
  return std::min(s.probe_before, s.probe_after) >= (1 - probe_tolerance) * best_probe;
}

double median_of(std::vector<double> sorted) {
  const size_t n = sorted.size();
  return n % 2 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2;
}

}  // namespace

Timing summarise(const std::vector<TimeSample>& samples, double best_probe) {
  Timing t;
  std::vector<double> seconds;
  for (const TimeSample& s : samples)
    if (counts(s, best_probe)) seconds.push_back(s.seconds);
  t.counted = int(seconds.size());
  t.dropped = int(samples.size()) - t.counted;
  t.disturbed = t.counted == 0 || 2 * t.counted < int(samples.size());
  if (seconds.empty())
    for (const TimeSample& s : samples) seconds.push_back(s.seconds);
  if (seconds.empty()) return t;
  std::sort(seconds.begin(), seconds.end());
  t.median = median_of(seconds);
  t.least = seconds.front();
  t.most = seconds.back();
  return t;
}

double SteadyTimer::probe() {
  const double rate = probes_ ? fma_rate() : 1;
  best_probe_ = std::max(best_probe_, rate);
  return rate;
}

std::vector<TimeSample> SteadyTimer::samples(int wanted, const std::function<void()>& work, double busy_seconds) {
  std::vector<TimeSample> samples;
  while (int(samples.size()) < 3 * wanted && summarise(samples, best_probe_).counted < wanted) {
    if (probes_) fma_rate(busy_seconds);
    TimeSample s;
    s.probe_before = probe();
    const double start = now_seconds();
    work();
    s.seconds = now_seconds() - start;
    s.probe_after = probe();
    samples.push_back(s);
  }
  return samples;
}

Timing SteadyTimer::time(int wanted, const std::function<void()>& work, double busy_seconds) {
  return summarise(samples(wanted, work, busy_seconds), best_probe_);
}

Timing SteadyTimer::time_short(int wanted, const std::function<void()>& work, double least_seconds) {
  if (probes_) fma_rate(0.05);
  work();  // choices of libraries, pages, caches
  const double start = now_seconds();
  work();
  const double once = std::max(now_seconds() - start, 1e-7);
  const int calls = int(std::clamp(std::ceil(least_seconds / once), 1.0, 1e6));
  Timing t = time(
      wanted,
      [&] {
        for (int i = 0; i < calls; ++i) work();
      },
      0.02);
  t.median /= calls, t.least /= calls, t.most /= calls;
  return t;
}

}  // namespace mixtape
