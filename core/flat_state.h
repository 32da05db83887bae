// A flat buffer of what an optimizer keeps: in the device's memory, or outside of it (offload.h). Who saves and loads
// it need not know which.
#pragma once

#include "core/backend.h"
#include "core/offload.h"
#include "core/ops/optimizer_state.h"

namespace mixtape {

class FlatState {
 public:
  FlatState() = default;  // absent
  FlatState(Backend& backend, Tensor memory)
      : backend_(&backend), memory_(std::move(memory)), count_(memory_ ? memory_.count() : -1) {
    if (memory_) dtype_ = memory_.dtype();
  }
  // Outside, from byte `at` on; `outside` is null in a plan.
  FlatState(DType dtype, int64_t count, int64_t at) : dtype_(dtype), count_(count), at_(at) {}
  void set_outside(Offload* outside) { outside_ = outside; }

  explicit operator bool() const { return count_ >= 0; }
  DType dtype() const { return dtype_; }
  int64_t count() const { return count_; }
  int64_t bytes() const { return count_ * size_of(dtype_); }
  bool offloaded() const { return *this && !memory_; }
  // Absent where it is outside.
  const Tensor& memory() const { return memory_; }
  Offload* outside() const { return outside_; }
  int64_t place_of(int64_t number) const { return at_ + number * size_of(dtype_); }

  // Numbers [begin, begin + count), to and from memory of the host.
  void read(void* to, int64_t begin, int64_t count) const {
    if (memory_) return backend_->copy_to_host(to, part(begin, count));
    outside_->read(to, place_of(begin), count * size_of(dtype_));
  }
  void write(int64_t begin, int64_t count, const void* from) const {
    if (memory_) return backend_->copy_from_host(part(begin, count), from);
    outside_->write(place_of(begin), from, count * size_of(dtype_));
  }

 private:
  Tensor part(int64_t begin, int64_t count) const {
    return Tensor(memory_.raw() ? memory_.raw() + begin * size_of(dtype_) : nullptr, {count}, dtype_);
  }

  Backend* backend_ = nullptr;
  Offload* outside_ = nullptr;
  Tensor memory_;
  DType dtype_ = DType::f32;
  int64_t count_ = -1, at_ = 0;
};

// A moment of every element, or of some: numbers, and the scales of 8-bit codes.
struct MomentState {
  FlatState values, scales;
  explicit operator bool() const { return bool(values); }
};

// What an update reads and writes beside weights and gradients, in the device's memory.
struct UpdateState {
  Tensor master;
  Moment m, v;
};

}  // namespace mixtape
