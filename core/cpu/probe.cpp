// Twelve chains of fused multiply-adds: enough to cover the latency (4 cycles) at two a cycle, and they fit the 16
// registers of AVX2 with the two constants.
#include "core/cpu/targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/cpu/probe.cpp"
#include "hwy/foreach_target.h"
//
#include <unistd.h>

#include <vector>

#include "core/base/clock.h"
#include "core/cpu/probe.h"
#include "core/cpu/simd.h"
#include "core/memory.h"
#include "hwy/cache_control.h"

HWY_BEFORE_NAMESPACE();
namespace mixtape::HWY_NAMESPACE {
namespace {

// Runs `rounds` rounds and returns how many floating-point operations those were. What `sink` receives depends on all
// of them.
double fma_chains(int64_t rounds, float* sink) {
  const FloatTag d;
  const Vec a = set(0.999f), b = set(0.001f);
  Vec x0 = set(0.0f), x1 = set(0.1f), x2 = set(0.2f), x3 = set(0.3f), x4 = set(0.4f), x5 = set(0.5f);
  Vec x6 = set(0.6f), x7 = set(0.7f), x8 = set(0.8f), x9 = set(0.9f), x10 = set(1.1f), x11 = set(1.2f);
  for (int64_t i = 0; i < rounds; ++i) {
    x0 = hn::MulAdd(x0, a, b), x1 = hn::MulAdd(x1, a, b), x2 = hn::MulAdd(x2, a, b), x3 = hn::MulAdd(x3, a, b);
    x4 = hn::MulAdd(x4, a, b), x5 = hn::MulAdd(x5, a, b), x6 = hn::MulAdd(x6, a, b), x7 = hn::MulAdd(x7, a, b);
    x8 = hn::MulAdd(x8, a, b), x9 = hn::MulAdd(x9, a, b), x10 = hn::MulAdd(x10, a, b), x11 = hn::MulAdd(x11, a, b);
  }
  const Vec s0 = hn::Add(hn::Add(x0, x1), hn::Add(x2, x3)), s1 = hn::Add(hn::Add(x4, x5), hn::Add(x6, x7));
  const Vec s2 = hn::Add(hn::Add(x8, x9), hn::Add(x10, x11));
  *sink += hn::GetLane(hn::SumOfLanes(d, hn::Add(hn::Add(s0, s1), s2)));
  return 12.0 * 2.0 * double(lanes()) * double(rounds);
}

float sum_of(const float* x, int64_t n) {
  return sum_over(n, [&](auto w, int64_t i) HWY_ATTR { return w.load(x + i); });
}

// n is a multiple of 64; both are aligned.
void copy_streaming(const float* x, float* y, int64_t n) {
  const FloatTag d;
  for (int64_t i = 0; i < n; i += lanes()) hn::Stream(hn::Load(d, x + i), d, y + i);
  hwy::FlushStream();
}

}  // namespace
}  // namespace mixtape::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mixtape {
namespace {

HWY_EXPORT(fma_chains);
HWY_EXPORT(sum_of);
HWY_EXPORT(copy_streaming);

double own_rate(double seconds) {
  constexpr int64_t rounds = 4096;  // some 10 microseconds between looks at the clock
  volatile float used = 0;
  float sink = 0;
  double operations = 0, elapsed = 0;
  const auto start = Clock::now();
  do {
    operations += HWY_DYNAMIC_DISPATCH(fma_chains)(rounds, &sink);
    elapsed = seconds_since(start);
  } while (elapsed < seconds);
  used = sink;
  (void)used;
  return operations / elapsed;
}

// Four times the last cache, so that next to nothing of it is found there again.
int64_t buffer_floats() {
  const int64_t cache = std::max<int64_t>(sysconf(_SC_LEVEL3_CACHE_SIZE), 0);
  return std::clamp<int64_t>(4 * cache, int64_t(64) << 20, int64_t(1) << 30) / int64_t(sizeof(float)) / 4096 * 4096;
}

// Best of three, after one that brings the pages in.
template <class Body>
double best_rate(double bytes, int64_t n, Body&& body) {
  double best = 0;
  for (int i = 0; i < 4; ++i) {
    const auto start = Clock::now();
    parallel_for(n / 4096, 1, [&](int64_t begin, int64_t end) { body(begin * 4096, (end - begin) * 4096); });
    if (i > 0) best = std::max(best, bytes / seconds_since(start));
  }
  return best;
}

}  // namespace

double fma_rate_one_thread(double seconds) { return own_rate(seconds); }

double fma_rate(double seconds) {
  double total = 0;
#pragma omp parallel num_threads(thread_count()) reduction(+ : total)
  total += own_rate(seconds);
  return total;
}

MemoryRates memory_rates() {
  const int64_t n = buffer_floats();
  const double bytes = double(n) * sizeof(float);
  const HostMemory from(n * int64_t(sizeof(float))), to(n * int64_t(sizeof(float)));
  auto* x = reinterpret_cast<float*>(from.data());
  auto* y = reinterpret_cast<float*>(to.data());
  parallel_for(n, 4096, [&](int64_t begin, int64_t end) { std::fill(x + begin, x + end, 1.f); });

  volatile float used = 0;
  MemoryRates rates;
  rates.read =
      best_rate(bytes, n, [&](int64_t begin, int64_t count) { used = HWY_DYNAMIC_DISPATCH(sum_of)(x + begin, count); });
  rates.copy = best_rate(2 * bytes, n, [&](int64_t begin, int64_t count) {
    HWY_DYNAMIC_DISPATCH(copy_streaming)(x + begin, y + begin, count);
  });
  (void)used;
  return rates;
}

void drop_from_caches(const void* data, int64_t bytes) {
  constexpr int64_t line = 64;
  const auto* first = static_cast<const std::byte*>(data);
  parallel_for((bytes + line - 1) / line, 1024, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) hwy::FlushCacheline(first + i * line);
  });
}

}  // namespace mixtape
#endif
