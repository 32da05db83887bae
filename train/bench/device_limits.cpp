#include "train/bench/device_limits.h"

#include <algorithm>

#include "core/ops/cast.h"
#include "core/ops/matmul.h"

namespace mixtape {
namespace {

constexpr double long_enough = 0.004;  // seconds of a call
constexpr int calls = 5;
constexpr int64_t most_bytes = int64_t(1) << 31, largest_product = 8192;

// Grows `size` until a call takes long enough, and gives the best rate of the largest.
template <class Measure>
double rate_of(int64_t size, int64_t largest, Measure&& measure) {
  for (;; size *= 2) {
    const auto [work, seconds] = measure(size);
    if (seconds >= long_enough || 2 * size > largest) return work / seconds;
  }
}

struct Measured {
  double work, seconds;
};

}  // namespace

bool is_cpu(const Backend& backend) { return backend.name() == "cpu"; }

double device_seconds(Backend& backend, int calls, const std::function<void()>& work) {
  work();  // choices of libraries
  double least = 1e30;
  for (int i = 0; i < calls; ++i) {
    backend.forget_marks();
    const int64_t start = backend.mark();
    work();
    least = std::min(least, std::max(backend.seconds_between(start, backend.mark()), 1e-9));
  }
  backend.forget_marks();
  return least;
}

Limits measure_device_limits(Backend& backend, DType type) {
  // A product's operands and result, or both ends of a copy, and what kernels take beside.
  const bool small = backend.name().find("emulated") != std::string::npos;
  const int64_t largest_copy = small ? int64_t(1) << 20 : most_bytes, largest = small ? 64 : largest_product;
  const int64_t capacity = 2 * largest_copy + (int64_t(256) << 20);
  Arena arena(backend.reserve(capacity), capacity);
  backend.bind(arena);
  arena.set_context("limits");

  Limits l{.device = backend.name(), .type = type};
  l.fma = rate_of(std::min<int64_t>(largest, 1024), largest, [&](int64_t n) {
    const Tensor x = backend.make({n, n}, type), w = backend.make({n, n}, type), y = backend.make({n, n}, type);
    backend.zero(x);
    backend.zero(w);
    return Measured{2.0 * double(n) * double(n) * double(n),
                    device_seconds(backend, calls, [&] { backend.matmul().linear({.y = y, .x = x, .weight = w}); })};
  });
  l.copy = rate_of(int64_t(1) << 20, largest_copy, [&](int64_t bytes) {
    const Tensor from = backend.make({bytes}, DType::u8), to = backend.make({bytes}, DType::u8);
    return Measured{2.0 * double(bytes), device_seconds(backend, calls, [&] { backend.copy(to, from); })};
  });
  l.read = rate_of(int64_t(1) << 20, largest_copy, [&](int64_t bytes) {
    const Tensor x = backend.make({bytes / 4}, DType::f32), amax = backend.make({1}, DType::f32);
    backend.zero(x);
    return Measured{double(bytes), device_seconds(backend, calls, [&] { backend.cast().abs_max({amax, x}); })};
  });
  l.read = std::max(l.read, l.copy);  // what copies can be read
  return l;
}

}  // namespace mixtape
