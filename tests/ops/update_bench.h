// What tests of update rules share: a device with flat buffers.
#pragma once

#include <cmath>
#include <optional>

#include "core/base/dispatch.h"
#include "core/ops/optimizer.h"
#include "tests/support/op_test.h"

namespace mixtape {

using Floats = std::vector<float>;
using Doubles = std::vector<double>;

// A device with guarded memory where it has the host's.
class Bench {
 public:
  explicit Bench(const TestDevice& device, int threads = 2)
      : backend_(device.make({.threads = threads, .determinism = Determinism::strict})) {
    std::byte* base = device.host_memory ? memory_.data() : backend_->reserve(memory_.bytes());
    arena_.emplace(base, memory_.bytes(), device.host_memory ? Arena::Guards::on : Arena::Guards::off);
    backend_->bind(*arena_);
  }
  ~Bench() { EXPECT_TRUE(arena_->guard_errors().empty()); }

  Backend& operator*() const { return *backend_; }
  template <class T>
  Tensor put(const std::vector<T>& values, DType type = dtype_of<T>) const {
    const Tensor t = backend_->make({int64_t(values.size())}, type);
    backend_->copy_from_host(t, values.data());
    return t;
  }
  Tensor put_as(const Floats& values, DType type) const {
    Tensor t;
    dispatch<float, fp16, bf16>(type, "test", [&]<class T>() {
      std::vector<T> narrow(values.size());
      for (size_t i = 0; i < values.size(); ++i) narrow[i] = T(values[i]);
      t = put(narrow, type);
    });
    return t;
  }
  template <class T>
  std::vector<T> get(const Tensor& t) const {
    std::vector<T> values(size_t(t.count()));
    backend_->copy_to_host(values.data(), t);
    return values;
  }
  std::vector<std::byte> bits(const Tensor& t) const {
    std::vector<std::byte> values(size_t(t ? t.bytes() : 0));
    if (t) backend_->copy_to_host(values.data(), t);
    return values;
  }
  StepState* state(const StepState& s) {
    state_ = backend_->make({int64_t(sizeof s)}, DType::u8);
    backend_->copy_from_host(state_, &s);
    return reinterpret_cast<StepState*>(state_.raw());
  }
  Moment zeros(DType type, int64_t n) const {
    Moment m(backend_->make({n}, type));
    backend_->zero(m.values);
    if (!m.blocks()) return m;
    m.scales = backend_->make({Moment::blocks_of(n)}, DType::f32);
    backend_->zero(m.scales);
    return m;
  }

 private:
  std::unique_ptr<Backend> backend_;
  HostMemory memory_{int64_t(1) << 28};
  std::optional<Arena> arena_;
  Tensor state_;
};

inline Floats normals(int64_t n, uint64_t seed, double spread = 0) {
  Floats values(static_cast<size_t>(n));
  for (size_t i = 0; i < values.size(); ++i) {
    const auto r = philox(philox_key(seed), i, 0, Purpose::test);
    values[i] = normal(r[0], r[1]) * float(std::exp(spread * normal(r[2], r[3])));
  }
  return values;
}

// The devices whose update kernels differ: Hopper's are those of sm_80.
inline std::vector<TestDevice> update_devices() {
  std::vector<TestDevice> devices;
  for (const TestDevice& d : test_devices())
    if (!d.name.ends_with("hopper")) devices.push_back(d);
  return devices;
}

}  // namespace mixtape
