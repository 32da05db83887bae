// Exchanges between GPUs beside the computing, on a device that does nothing before it must.
#include "cuda/exchange.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "cuda/emulator/runtime.h"
#include "cuda/emulator/threads.h"

namespace mixtape {
namespace {

// The second of two ranks, where the first has the same numbers.
class Twin final : public Communicator {
 public:
  int rank() const override { return 1; }
  int size() const override { return 2; }
  void all_reduce(std::span<float> values) override {
    for (float& v : values) v *= 2;
  }
  void all_reduce(std::span<int64_t> values) override {
    for (int64_t& v : values) v *= 2;
  }
  void all_to_all(std::span<const float> from, std::span<const int64_t> counts, std::span<float> to) override {
    for (size_t i = 0; i < to.size(); ++i) to[i] = from[size_t(counts[0]) + i % (to.size() / 2)];
  }
  void reduce_scatter(std::span<const float> from, std::span<const int64_t> counts, std::span<float> to) override {
    for (size_t i = 0; i < to.size(); ++i) to[i] = 2 * from[size_t(counts[0]) + i];
  }
  void all_gather(std::span<std::byte> all, std::span<const int64_t> bytes) override {
    std::copy_n(all.begin() + bytes[0], bytes[0], all.begin());
  }
  void broadcast(std::span<std::byte>, int) override {}
  void barrier() override {}
  std::unique_ptr<Communicator> split(int, int) override { return nullptr; }
  void abort(int) override {}
};

// Computes, exchanges, and computes with what came, twice over: the results, of a device whose order the seed draws.
std::vector<float> exchanged(uint64_t seed, emulator::LeftOut mistake) {
  emulator::set_seed(seed);
  emulator::run_late(true);
  cuda::Runtime runtime(0);
  emulator::run_late(false);
  Twin ranks;
  cuda::QueuedExchange exchange(runtime, ranks);
  std::vector<float> values(6, -1), copied(6, -1), results;
  std::vector<int64_t> whole(2, -1);
  const auto tensor = [](auto& v, Shape shape, DType type) {
    return Tensor(reinterpret_cast<std::byte*>(v.data()), shape, type);
  };
  const Tensor all = tensor(values, {6}, DType::f32), half(all.raw() + 12, {3}, DType::f32);
  const auto compute = [&](auto&& work) { emulator::queue(runtime, work); };
  const auto keep = [&](const auto& v) { compute([&] { results.insert(results.end(), v.begin(), v.end()); }); };
  emulator::leave_out(mistake);
  const int64_t counts[] = {3, 3};
  for (int round = 1; round <= 2; ++round) {
    compute([&, round] {
      for (size_t i = 0; i < 6; ++i) values[i] = float(round * 10) + float(i);
      whole = {round, 10 * round};
    });
    exchange.all_reduce(all);
    exchange.wait(exchange.all_reduce(tensor(whole, {2}, DType::i64)));
    keep(values);
    keep(whole);
    exchange.wait(exchange.reduce_scatter(all, counts, half));
    compute([&] { values[3] += 1; });
    exchange.copy(tensor(copied, {6}, DType::f32), all);
    exchange.wait(exchange.all_gather(tensor(copied, {6}, DType::f32), counts));
    keep(copied);
    exchange.largest(tensor(copied, {6}, DType::f32));
    exchange.wait(exchange.all_to_all(tensor(copied, {6}, DType::f32), counts, all));
    keep(values);
  }
  runtime.synchronize();
  emulator::leave_out(emulator::LeftOut::nothing);
  return results;
}

const std::vector<float> expected = [] {
  std::vector<float> all;
  for (const float ten : {10.f, 20.f}) {
    for (int i = 0; i < 6; ++i) all.push_back(2 * (ten + float(i)));
    all.insert(all.end(), {ten / 5, 2 * ten});
    for (int r = 0; r < 4; ++r)  // gathered, and exchanged
      for (int i = 3; i < 6; ++i) all.push_back(4 * (ten + float(i)) + (i == 3 ? 1 : 0));
  }
  return all;
}();

TEST(QueuedExchange, FollowsWhatWasAskedForAndIsFollowedByWhatWaits) {
  for (uint64_t seed = 1; seed <= 20; ++seed) EXPECT_EQ(exchanged(seed, emulator::LeftOut::nothing), expected) << seed;
}

// Each kind of wait is needed: without it some order of the queues shows.
TEST(QueuedExchange, AWaitThatIsLeftOutShows) {
  for (const auto mistake : {emulator::LeftOut::waits_of_compute, emulator::LeftOut::waits_of_communication}) {
    int wrong = 0;
    for (uint64_t seed = 1; seed <= 20; ++seed) wrong += exchanged(seed, mistake) != expected;
    EXPECT_GT(wrong, 10) << int(mistake);
  }
}

TEST(QueuedExchange, RefusesPartsThatAreNotTheWhole) {
  cuda::Runtime runtime(0);
  cuda::QueuedExchange exchange(runtime, single_process());
  std::vector<float> values(4);
  const Tensor all(reinterpret_cast<std::byte*>(values.data()), {4}, DType::f32);
  const int64_t counts[] = {3};
  EXPECT_THROW(exchange.reduce_scatter(all, counts, all), Error);
  EXPECT_THROW(exchange.all_gather(all, counts), Error);
  EXPECT_THROW(exchange.all_reduce(Tensor(all.raw(), {8}, DType::bf16)), Error);
}

}  // namespace
}  // namespace mixtape
