// State in memory of the host, fetched, changed and stored in two places in turns: right however late the queues run,
// and each wait that is left out shows.
#include "cuda/offload.h"

#include <gtest/gtest.h>

#include "cuda/backend.h"
#include "cuda/emulator/runtime.h"
#include "cuda/emulator/threads.h"
#include "cuda/launch.h"

namespace mixtape {
namespace {

using emulator::LeftOut;

constexpr int64_t pieces = 5, n = 100;

__global__ void twice_and_one_kernel(float* x, int64_t count) {
  for (int64_t i = 0; i < count; ++i) x[i] = 2 * x[i] + 1;
}

// Three rounds over all pieces, as StateStage goes; what is outside then.
std::vector<float> changed(uint64_t seed, LeftOut mistake) {
  emulator::set_seed(seed);
  emulator::run_late(true);
  CudaBackend backend;
  Arena arena(backend.reserve(1 << 20), 1 << 20);
  backend.bind(arena);
  const std::unique_ptr<Offload> outside = backend.offload(pieces * n * 4, "");
  std::vector<float> start(pieces * n);
  for (size_t i = 0; i < start.size(); ++i) start[i] = float(i % 97);
  outside->write(0, start.data(), pieces * n * 4);
  const Tensor places[2] = {backend.make({n}, DType::f32), backend.make({n}, DType::f32)};
  emulator::leave_out(mistake);
  const int64_t waits = emulator::host_counts().waits;
  Offload::Ticket tickets[2];
  const auto fetch = [&](int64_t k) { tickets[k % 2] = outside->fetch(places[k % 2], k % pieces * n * 4); };
  fetch(0), fetch(1);
  for (int64_t k = 0; k < 3 * pieces; ++k) {
    outside->wait(tickets[k % 2]);
    cuda::launch(backend.runtime(), twice_and_one_kernel, dim3(1), dim3(1), 0, places[k % 2].data<float>(), n);
    outside->store(k % pieces * n * 4, places[k % 2]);
    fetch(k + 2);
  }
  EXPECT_EQ(emulator::host_counts().waits, waits) << "the host waits";
  std::vector<float> found(pieces * n);
  outside->read(found.data(), 0, pieces * n * 4);
  emulator::leave_out(LeftOut::nothing);
  emulator::run_late(false);
  return found;
}

TEST(PinnedOffload, EachPieceIsFetchedAfterItWasStoredAndStoredAfterItWasChanged) {
  std::vector<float> expected(pieces * n);
  for (size_t i = 0; i < expected.size(); ++i) expected[i] = 8 * float(i % 97) + 7;
  for (uint64_t seed = 1; seed <= 20; ++seed) EXPECT_EQ(changed(seed, LeftOut::nothing), expected) << seed;
  for (const LeftOut mistake : {LeftOut::waits_of_compute, LeftOut::waits_of_upload, LeftOut::waits_of_download}) {
    int wrong = 0;
    for (uint64_t seed = 1; seed <= 20; ++seed) wrong += changed(seed, mistake) != expected;
    EXPECT_GT(wrong, 0) << int(mistake);
  }
}

TEST(PinnedOffload, BeginsWithZeros) {
  CudaBackend backend;
  const std::unique_ptr<Offload> outside = backend.offload(1000, "");
  std::vector<uint8_t> found(1000, 1);
  outside->read(found.data(), 0, 1000);
  EXPECT_EQ(found, std::vector<uint8_t>(1000));
}

}  // namespace
}  // namespace mixtape
