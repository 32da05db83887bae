// Queues, events and recordings: what is asked for happens in an order that was asked for, however late the device runs
// it, and each wait that is left out shows.
#include "cuda/runtime.h"

#include <gtest/gtest.h>

#include "core/step_state.h"
#include "cuda/backend.h"
#include "cuda/emulator/runtime.h"
#include "cuda/emulator/threads.h"
#include "cuda/launch.h"
#include "cuda/staging.h"

namespace mixtape {
namespace {

using cuda::Queue;
using cuda::Runtime;
using emulator::LeftOut;

constexpr int seeds = 20;

// Late, and without a mistake again at the end.
class Late : public testing::Test {
 protected:
  Late() { emulator::run_late(true); }
  ~Late() override {
    emulator::run_late(false);
    emulator::leave_out(LeftOut::nothing);
  }
};
using RuntimeLate = Late;
using FeedLate = Late;
using RepeatLate = Late;

// A back end with an arena.
struct Gpu {
  explicit Gpu(CudaOptions options = {}) : backend(options) { backend.bind(arena); }
  template <class T>
  std::vector<T> values(const Tensor& t) {
    std::vector<T> v(size_t(t.count()));
    backend.copy_to_host(v.data(), t);
    return v;
  }

  CudaBackend backend;
  Arena arena{backend.reserve(1 << 24), 1 << 24};
};

__global__ void add_kernel(float* y, float x) { *y += x; }
__global__ void add_rate_kernel(float* y, const StepState* state) { *y += state->learning_rate; }
__global__ void sum_kernel(int64_t* sum, const int32_t* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) *sum = (*sum * 31 + x[i]) % 1'000'000'007;
}

void add(Gpu& gpu, const Tensor& y, float x) {
  cuda::launch(gpu.backend.runtime(), add_kernel, dim3(1), dim3(1), 0, y.data<float>(), x);
}
Tensor zero(Gpu& gpu) {
  const Tensor y = gpu.backend.make({1}, DType::f32);
  gpu.backend.zero(y);
  return y;
}

TEST_F(RuntimeLate, NothingHappensBeforeSomebodyWaits) {
  Gpu gpu;
  const Tensor y = zero(gpu);
  gpu.backend.synchronize();
  add(gpu, y, 2);
  EXPECT_EQ(*y.data<float>(), 0);
  gpu.backend.synchronize();
  EXPECT_EQ(*y.data<float>(), 2);
}

// Memory that is uploaded is the caller's again at once, however much it is.
TEST_F(RuntimeLate, UploadsAreOfWhatWasThereWhenTheyWereAskedFor) {
  Gpu gpu;
  for (const int64_t n : {1, 1000, 3 << 20}) {
    const Tensor to = gpu.backend.make({n}, DType::u8);
    std::vector<uint8_t> from(static_cast<size_t>(n));
    for (int64_t i = 0; i < n; ++i) from[size_t(i)] = uint8_t(i * 7 + n);
    const std::vector<uint8_t> want = from;
    gpu.backend.copy_from_host(to, from.data());
    std::fill(from.begin(), from.end(), 0);
    EXPECT_EQ(gpu.values<uint8_t>(to), want) << n;
  }
}

// More than the ring holds, in pieces of odd sizes: memory is filled again only when it has been sent.
std::vector<std::vector<int32_t>> uploaded_through_the_ring() {
  Gpu gpu;
  std::vector<Tensor> tensors;
  std::vector<std::vector<int32_t>> found;
  for (int i = 0; i < 60; ++i) {
    const int64_t n = 10000 + 1999 * i;
    tensors.push_back(gpu.backend.make({n}, DType::i32));
    const std::vector<int32_t> values(size_t(n), i);
    gpu.backend.copy_from_host(tensors.back(), values.data());
  }
  gpu.backend.synchronize();
  for (const Tensor& t : tensors) found.emplace_back(t.data<int32_t>(), t.data<int32_t>() + t.count());
  return found;
}

TEST_F(RuntimeLate, TheRingIsFilledAgainWhenItHasBeenSent) {
  const auto wrong = [] {
    int count = 0;
    const auto found = uploaded_through_the_ring();
    for (size_t i = 0; i < found.size(); ++i) count += found[i] != std::vector<int32_t>(found[i].size(), int32_t(i));
    return count;
  };
  EXPECT_EQ(wrong(), 0);
  emulator::leave_out(LeftOut::waits_of_host);
  EXPECT_GT(wrong(), 0) << "a mistake that was not seen";
}

// One of 8 batches after another, each read by a kernel; what the kernels found.
std::vector<int64_t> fed() {
  Gpu gpu;
  constexpr int64_t n = 100;
  const Tensor block = gpu.backend.make({n}, DType::i32), sums = gpu.backend.make({8}, DType::i64);
  gpu.backend.zero(sums);
  const auto feed = gpu.backend.feed(block);
  for (int batch = 0; batch < 8; ++batch) {
    auto* to = reinterpret_cast<int32_t*>(feed->fill());
    for (int32_t i = 0; i < n; ++i) to[i] = batch * 1000 + i;
    feed->send();
    cuda::launch(gpu.backend.runtime(), sum_kernel, dim3(1), dim3(1), 0, reinterpret_cast<int64_t*>(sums.raw()) + batch,
                 block.data<int32_t>(), n);
  }
  gpu.backend.synchronize();
  const auto* found = reinterpret_cast<const int64_t*>(sums.raw());
  return {found, found + 8};
}

TEST_F(FeedLate, EachMicroBatchIsReadAsItWasFilled) {
  emulator::run_late(false);
  const std::vector<int64_t> want = fed();
  emulator::run_late(true);
  const auto wrong = [&](LeftOut mistake) {
    emulator::leave_out(mistake);
    int runs = 0;
    for (int seed = 1; seed <= seeds; ++seed) {
      emulator::set_seed(uint64_t(seed));
      runs += fed() != want;
    }
    return runs;
  };
  EXPECT_EQ(wrong(LeftOut::nothing), 0);
  EXPECT_GT(wrong(LeftOut::waits_of_compute), 0) << "kernels read what has not been sent";
  EXPECT_GT(wrong(LeftOut::waits_of_upload), 0) << "a slot is sent over before it has been taken";
  EXPECT_GT(wrong(LeftOut::waits_of_host), 0) << "a slot is filled before it has been sent";
}

// Runs as it is, is recorded, is replayed: three times the same.
TEST_F(RepeatLate, RecordedWorkDoesTheSame) {
  Gpu gpu({.graphs = true});
  const Tensor y = zero(gpu);
  int runs = 0;
  const auto work = [&] {
    ++runs;
    const Tensor table = gpu.backend.workspace({4}, DType::f32);
    const std::vector<float> values{1, 10, 100, 1000};  // gone when the work is replayed
    gpu.backend.copy_from_host(table, values.data());
    for (int i = 0; i < 3; ++i) add(gpu, y, float(i + 1));
    const Tensor hundred(table.data<float>() + 2, {1}, DType::f32);
    gpu.backend.cast().convert({.y = {y, Write::accumulate}, .x = hundred});
  };
  for (int call = 1; call <= 6; ++call) {
    gpu.backend.repeat(0, work);
    EXPECT_EQ(gpu.values<float>(y)[0], float(106 * call)) << call;
    const Tensor other = gpu.backend.make({4}, DType::f32);  // where the scratch memory was
    const std::vector<float> changed(4, float(call));
    gpu.backend.copy_from_host(other, changed.data());
  }
  EXPECT_EQ(runs, 2);
}

// What changes from step to step is read from memory. As an argument it would stay what it was when it was recorded.
TEST_F(RepeatLate, AnArgumentStaysWhatItWasAndTheStepsStateDoesNot) {
  Gpu gpu({.graphs = true});
  const Tensor by_argument = zero(gpu), by_state = zero(gpu);
  const Tensor device_state = gpu.backend.make({int64_t(sizeof(StepState))}, DType::u8);
  auto* state = reinterpret_cast<StepState*>(device_state.raw());
  for (const float rate : {1.f, 2.f, 4.f, 8.f}) {
    const StepState host{.learning_rate = rate};
    gpu.backend.copy_from_host(device_state, &host);
    gpu.backend.repeat(0, [&] {
      add(gpu, by_argument, rate);
      cuda::launch(gpu.backend.runtime(), add_rate_kernel, dim3(1), dim3(1), 0, by_state.data<float>(), state);
    });
  }
  EXPECT_EQ(gpu.values<float>(by_state)[0], 15);
  EXPECT_EQ(gpu.values<float>(by_argument)[0], 1 + 2 + 2 + 2) << "recorded at the second call";
}

// Work that waits cannot be recorded: it is told once, and the work runs as it is.
TEST_F(RepeatLate, WhatCannotBeRecordedIsToldAndRuns) {
  std::vector<std::string> told;
  Gpu gpu({.graphs = true, .graphs_refused = [&](const std::string& why) { told.push_back(why); }});
  const Tensor y = zero(gpu);
  for (int call = 1; call <= 4; ++call) {
    float seen = 0;
    gpu.backend.repeat(0, [&] {
      add(gpu, y, 1);
      gpu.backend.copy_to_host(&seen, y);
    });
    EXPECT_EQ(seen, float(call));
  }
  ASSERT_EQ(told.size(), 1u);
  EXPECT_NE(told[0].find("waits for the device while work is recorded"), std::string::npos) << told[0];
}

TEST_F(RepeatLate, WorkThatIsNotTheSameIsRefused) {
  std::vector<std::string> told;
  Gpu gpu({.graphs = true, .graphs_refused = [&](const std::string& why) { told.push_back(why); }});
  const Tensor y = gpu.backend.make({1000}, DType::u8);
  std::vector<uint8_t> bytes(1000);
  int64_t n = 1;
  const auto work = [&] { gpu.backend.copy_from_host(Tensor(y.raw(), {n}, DType::u8), bytes.data()); };
  gpu.backend.repeat(0, work);
  n = 1000;
  gpu.backend.repeat(0, work);
  ASSERT_EQ(told.size(), 1u);
  EXPECT_NE(told[0].find("not the same work"), std::string::npos) << told[0];

  gpu.backend.repeat(1, [&] { add(gpu, zero(gpu), 1); });
  const Tensor held = zero(gpu);
  EXPECT_THROW(gpu.backend.repeat(1, [&] { add(gpu, zero(gpu), 1); }), Error) << "other memory in use";
}

}  // namespace
}  // namespace mixtape
