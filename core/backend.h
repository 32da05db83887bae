// A device: memory, a stream, and ten families of kernels. It knows no operation and no element type.
//
// Kernels take scratch memory from the arena through workspace(). In a dry run the arena has no memory behind it: a
// kernel then asks for its workspace as always and returns (`if (planning()) return;`), so that the plan counts exactly
// what the run will take.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/clock.h"
#include "core/offload.h"
#include "core/step_state.h"
#include "core/tensor.h"

namespace mixtape {

class MatmulKernels;
class AttentionKernels;
class NormKernels;
class ActivationKernels;
class EmbeddingKernels;
class LossKernels;
class DropoutKernels;
class PositionKernels;
class CastKernels;
class OptimizerKernels;

enum class Determinism { fast, strict };

// The way of a block of inputs to the device: the host fills memory and sends it, while the device may still compute
// with what was sent before.
class Feed {
 public:
  virtual ~Feed() = default;
  // Memory to fill, as large as the block; null in a plan. It holds what was filled earlier, or nothing known.
  virtual std::byte* fill() = 0;
  // Whatever is asked of the device from now on finds in the block what was filled.
  virtual void send() = 0;
};

class Backend {
 public:
  virtual ~Backend() = default;
  virtual std::string name() const = 0;

  virtual MatmulKernels& matmul() = 0;
  virtual AttentionKernels& attention() = 0;
  virtual NormKernels& norm() = 0;
  virtual ActivationKernels& activation() = 0;
  virtual EmbeddingKernels& embedding() = 0;
  virtual LossKernels& loss() = 0;
  virtual DropoutKernels& dropout() = 0;
  virtual PositionKernels& position() = 0;
  virtual CastKernels& cast() = 0;
  virtual OptimizerKernels& optimizer() = 0;

  // Device memory for an arena; the back end keeps it until it is destroyed.
  virtual std::byte* reserve(int64_t bytes) = 0;
  virtual void copy_from_host(const Tensor& to, const void* from) = 0;
  virtual void copy_to_host(void* to, const Tensor& from) = 0;
  virtual void zero(const Tensor& tensor) = 0;
  // From one contiguous tensor of the device to another of as many bytes.
  virtual void copy(const Tensor& to, const Tensor& from) = 0;
  virtual void synchronize() = 0;
  // So many bytes outside of the device's memory, all 0.
  virtual std::unique_ptr<Offload> offload(const OffloadRoom& room) = 0;
  // By default the block itself is filled, since the host shares the device's memory.
  virtual std::unique_ptr<Feed> feed(const Tensor& block);

  // Runs `work`, which for one `id` always asks for the same kernels on the same memory with the same arguments. A
  // device may record what it asks for, and at a later call repeat that without running `work`.
  virtual void repeat(int /*id*/, const std::function<void()>& work) { work(); }
  // Names what is asked for in between, for the device's profiler.
  virtual void begin_range(std::string_view /*name*/) {}
  virtual void end_range() {}

  // A mark in the order of the device's work, and the seconds between two of them, for which the second is waited.
  // These are moments of the host's clock, which is right where a call has done its work when it returns.
  virtual int64_t mark() {
    marks_.push_back(now_seconds());
    return int64_t(marks_.size()) - 1;
  }
  virtual double seconds_between(int64_t first, int64_t second) {
    return marks_.at(size_t(second)) - marks_.at(size_t(first));
  }
  virtual void forget_marks() { marks_.clear(); }

  // A contiguous tensor as the host can read it: the memory itself where the host shares it, else a copy in `buffer`.
  virtual const void* host_view(const Tensor& tensor, std::vector<std::byte>& buffer) {
    buffer.resize(size_t(tensor.bytes()));
    copy_to_host(buffer.data(), tensor);
    return buffer.data();
  }

  // What the device chose by timing (a library for a shape), as text: the same choices give the same bits.
  virtual std::string choices() const { return {}; }
  virtual void set_choices(const std::string&) {}

  // The arena that tensors and workspace come from; set before any kernel runs.
  void bind(Arena& arena) { arena_ = &arena; }
  Arena& arena() const { return *arena_; }
  bool planning() const { return arena_->planning(); }
  Tensor make(Shape shape, DType dtype, Category category = Category::activations) const {
    return Tensor(arena_->allocate(shape.count() * size_of(dtype), category), shape, dtype);
  }
  // Scratch memory, given back when the returned tensor goes out of scope.
  Tensor workspace(Shape shape, DType dtype) const { return make(shape, dtype, Category::workspace); }

 private:
  Arena* arena_ = nullptr;
  std::vector<double> marks_;
};

class SharedMemoryFeed final : public Feed {
 public:
  explicit SharedMemoryFeed(const Tensor& block) : block_(block) {}
  std::byte* fill() override { return block_.raw(); }
  void send() override {}

 private:
  Tensor block_;
};
inline std::unique_ptr<Feed> Backend::feed(const Tensor& block) { return std::make_unique<SharedMemoryFeed>(block); }

}  // namespace mixtape
