// NCCL on one GPU, whose only rank is this process: that it loads, meets, and keeps the order of the queues. Skipped
// where there is no NCCL.
#include "cuda/exchange.h"

#include <gtest/gtest.h>

#include <vector>

#include "cuda/backend.h"

namespace mixtape {
namespace {

TEST(Nccl, OneRankExchangesWithItself) {
  std::string missing;
  if (cuda::Collectives::version(missing).empty()) GTEST_SKIP() << missing;
  CudaBackend backend;
  const int64_t capacity = int64_t(1) << 20;
  Arena arena(backend.reserve(capacity), capacity);
  backend.bind(arena);
  arena.set_context("test");
  cuda::QueuedExchange exchange(backend.runtime(), single_process());
  const int64_t counts[] = {1000};
  const Tensor x = backend.make({1000}, DType::f32), y = backend.make({1000}, DType::f32);
  std::vector<float> values(1000), got(1000);
  for (size_t i = 0; i < values.size(); ++i) values[i] = float(i) - 500;
  for (int round = 0; round < 3; ++round) {
    backend.zero(y);
    backend.copy_from_host(x, values.data());
    exchange.all_reduce(x);
    exchange.reduce_scatter(x, counts, x);
    exchange.largest(y);
    exchange.all_to_all(x, counts, y);
    exchange.all_to_all(y, counts, x);
    exchange.copy(y, x);
    exchange.wait(exchange.all_gather(y, counts));
    backend.copy_to_host(got.data(), y);
    EXPECT_EQ(got, values);
    EXPECT_EQ(exchange.fault(), "");
  }
}

}  // namespace
}  // namespace mixtape
