// A back end with guarded memory, and tensors with known contents: what tests beside the harness need.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <utility>

#include "core/base/dispatch.h"
#include "core/base/philox.h"
#include "core/cpu/backend.h"
#include "cuda/backend.h"
#include "cuda/emulator/device.h"
#include "cuda/emulator/threads.h"

namespace mixtape {

// Whether a sanitizer watches: what takes minutes then has fewer cases, as one shows what it looks for.
inline constexpr bool sanitized = MIXTAPE_ASAN || MIXTAPE_TSAN;

class Device {
 public:
  explicit Device(std::unique_ptr<Backend> made) : backend_(std::move(made)) { backend_->bind(arena_); }
  ~Device() {
    for (const std::string& error : arena_.guard_errors()) ADD_FAILURE() << backend_->name() << ": " << error;
  }

  Backend& operator*() const { return *backend_; }
  Backend* operator->() const { return backend_.get(); }
  Arena& arena() { return arena_; }

  Tensor make(Shape shape, DType type) const { return backend_->make(shape, type); }
  // Normal numbers, the same for a seed on every device.
  Tensor normal(Shape shape, DType type, uint64_t seed, double std = 1) const {
    const Tensor t = make(shape, type);
    dispatch<float, fp16, bf16>(type, "test", [&]<class T>() {
      std::vector<T> values(size_t(t.count()));
      for (size_t i = 0; i < values.size(); ++i) {
        const auto bits = philox(philox_key(seed), i, 0, Purpose::test);
        values[i] = T(float(std * mixtape::normal(bits[0], bits[1])));
      }
      backend_->copy_from_host(t, values.data());
    });
    return t;
  }
  template <class T>
  Tensor upload(const std::vector<T>& values, Shape shape = {}) const {
    const Tensor t = make(shape.rank() ? shape : Shape{int64_t(values.size())}, dtype_of<T>);
    backend_->copy_from_host(t, values.data());
    return t;
  }
  template <class T>
  std::vector<T> values(const Tensor& t) const {
    std::vector<T> values(size_t(t.count()));
    backend_->copy_to_host(values.data(), t);
    return values;
  }
  std::vector<std::byte> bits(const Tensor& t) const {
    std::vector<std::byte> bits(size_t(t.bytes()));
    backend_->copy_to_host(bits.data(), t);
    return bits;
  }
  StepState* upload_state(const StepState& state) {
    state_ = make({int64_t(sizeof state)}, DType::u8);
    backend_->copy_from_host(state_, &state);
    return reinterpret_cast<StepState*>(state_.raw());
  }
  StepState state() const {
    StepState state;
    backend_->copy_to_host(&state, state_);
    return state;
  }

 private:
  std::unique_ptr<Backend> backend_;
  HostMemory memory_{int64_t(1) << 30};
  Arena arena_{memory_.data(), memory_.bytes(), Arena::Guards::on};
  Tensor state_;
};

inline Device cpu() { return Device(std::make_unique<CpuBackend>()); }
inline Device emulated(uint64_t seed = 1, emulator::DeviceProperties properties = {}) {
  emulator::set_seed(seed);
  const auto before = std::exchange(emulator::device(), properties);
  auto backend = std::make_unique<CudaBackend>();
  emulator::device() = before;
  return Device(std::move(backend));
}
inline Device emulated_hopper(uint64_t seed = 1, int multiprocessors = 2) {
  return emulated(seed, {.compute_capability = 90, .multiprocessors = multiprocessors});
}

}  // namespace mixtape
