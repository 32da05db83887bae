// Memory outside of the GPU's, fetched, changed and stored in two places in turns: right however late the queues run,
// and each wait that is left out shows.
#include "cuda/offload.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <functional>

#include "cuda/backend.h"
#include "cuda/emulator/runtime.h"
#include "cuda/emulator/threads.h"
#include "cuda/launch.h"
#include "cuda/offload_to_disk.h"
#include "tests/checkpoint/temporary_directory.h"

namespace mixtape {
namespace {

using emulator::LeftOut;

constexpr int64_t pieces = 5, n = 100;

__global__ void twice_and_one_kernel(float* x, int64_t count) {
  for (int64_t i = 0; i < count; ++i) x[i] = 2 * x[i] + 1;
}

// In memory of the host, or on disk.
class GpuOffload : public testing::TestWithParam<bool> {
 protected:
  OffloadRoom room(int64_t bytes) const { return {"numbers", bytes, {directory.path.string(), GetParam()}}; }
  std::vector<float> changed(uint64_t seed, LeftOut mistake) const;
  float overtaken(uint64_t seed, LeftOut mistake) const;
  TemporaryDirectory directory;
};

// A device whose queues run late, in an order of the seed's.
struct LateDevice {
  explicit LateDevice(uint64_t seed) {
    emulator::set_seed(seed);
    emulator::run_late(true);
    backend = std::make_unique<CudaBackend>();
    arena = std::make_unique<Arena>(backend->reserve(1 << 20), 1 << 20);
    backend->bind(*arena);
  }
  ~LateDevice() {
    emulator::leave_out(LeftOut::nothing);
    emulator::run_late(false);
  }
  std::unique_ptr<CudaBackend> backend;
  std::unique_ptr<Arena> arena;
};

// Three rounds over all pieces, as StateStage goes; what is outside then.
std::vector<float> GpuOffload::changed(uint64_t seed, LeftOut mistake) const {
  const LateDevice device(seed);
  CudaBackend& backend = *device.backend;
  const std::unique_ptr<Offload> outside = backend.offload(room(pieces * n * 4));
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
  return found;
}

// Memory that compute still reads is fetched into, and memory that a store still takes from is written to.
float GpuOffload::overtaken(uint64_t seed, LeftOut mistake) const {
  const LateDevice device(seed);
  CudaBackend& backend = *device.backend;
  const std::unique_ptr<Offload> outside = backend.offload(room(2 * n * 4));
  const std::vector<float> sevens(n, 7), ones(n, 1);
  outside->write(0, sevens.data(), n * 4);
  const Tensor place = backend.make({n}, DType::f32), kept = backend.make({n}, DType::f32);
  backend.copy_from_host(place, ones.data());
  backend.synchronize();
  emulator::leave_out(mistake);
  cuda::launch(backend.runtime(), twice_and_one_kernel, dim3(1), dim3(1), 0, place.data<float>(), n);
  backend.copy(kept, place);
  const Offload::Ticket ticket = outside->fetch(place, 0);
  outside->store(n * 4, kept);
  outside->wait_for_stores();
  backend.zero(kept);
  outside->wait(ticket);
  cuda::launch(backend.runtime(), twice_and_one_kernel, dim3(1), dim3(1), 0, place.data<float>(), n);
  std::vector<float> stored(n), fetched(n);
  outside->read(stored.data(), n * 4, n * 4);
  backend.copy_to_host(fetched.data(), place);
  return 100 * stored[n - 1] + fetched[n - 1];
}

TEST_P(GpuOffload, NobodyOvertakesWhoStillUsesTheMemory) {
  for (uint64_t seed = 1; seed <= 20; ++seed) EXPECT_EQ(overtaken(seed, LeftOut::nothing), 315) << seed;
  for (const LeftOut mistake : {LeftOut::waits_of_compute, LeftOut::waits_of_upload, LeftOut::waits_of_download}) {
    int wrong = 0;
    for (uint64_t seed = 1; seed <= 20; ++seed) wrong += overtaken(seed, mistake) != 315;
    EXPECT_GT(wrong, 0) << int(mistake);
  }
}

TEST_P(GpuOffload, EachPieceIsFetchedAfterItWasStoredAndStoredAfterItWasChanged) {
  std::vector<float> expected(pieces * n);
  for (size_t i = 0; i < expected.size(); ++i) expected[i] = 8 * float(i % 97) + 7;
  for (uint64_t seed = 1; seed <= 20; ++seed) EXPECT_EQ(changed(seed, LeftOut::nothing), expected) << seed;
  for (const LeftOut mistake : {LeftOut::waits_of_compute, LeftOut::waits_of_upload, LeftOut::waits_of_download}) {
    int wrong = 0;
    for (uint64_t seed = 1; seed <= 20; ++seed) wrong += changed(seed, mistake) != expected;
    EXPECT_GT(wrong, 0) << int(mistake);
  }
}

TEST_P(GpuOffload, BeginsWithZeros) {
  CudaBackend backend;
  const std::unique_ptr<Offload> outside = backend.offload(room(1000));
  std::vector<uint8_t> found(1000, 1);
  outside->read(found.data(), 0, 1000);
  EXPECT_EQ(found, std::vector<uint8_t>(1000));
  EXPECT_TRUE(std::filesystem::is_empty(directory.path)) << "a file has no name";
}

INSTANTIATE_TEST_SUITE_P(Places, GpuOffload, testing::Bool(),
                         [](const auto& on_disk) { return on_disk.param ? "Disk" : "HostMemory"; });

// Tensors of several chunks, more of them than calls are remembered.
TEST(OffloadToDisk, CutsIntoChunks) {
  using cuda::OffloadToDisk;
  const TemporaryDirectory directory;
  constexpr int64_t bytes = 2 * OffloadToDisk::chunk_bytes + 1000, chunks = 3;
  for (const bool late : {false, true}) {
    emulator::set_seed(5);
    emulator::run_late(late);
    CudaBackend backend;
    Arena arena(backend.reserve(4 * bytes), 4 * bytes);
    backend.bind(arena);
    const std::unique_ptr<Offload> outside = backend.offload({"numbers", 2 * bytes, {directory.path.string(), true}});
    const Tensor from[2] = {backend.make({bytes}, DType::u8), backend.make({bytes}, DType::u8)},
                 to = backend.make({bytes}, DType::u8);
    std::vector<uint8_t> numbers[2], found(bytes);
    for (int which : {0, 1}) {
      for (int64_t i = 0; i < bytes; ++i) numbers[which].push_back(uint8_t(i * 31 / 7 + i / 251 + which));
      backend.copy_from_host(from[which], numbers[which].data());
    }
    for (int64_t i = 0; i < 300 / chunks; ++i) {
      outside->store(i % 2 * bytes, from[i % 2]);
      if (i % 10 < 2) outside->wait(outside->fetch(to, i % 2 * bytes));
    }
    for (int which : {0, 1}) {
      outside->wait(outside->fetch(to, which * bytes));
      backend.copy_to_host(found.data(), to);
      EXPECT_EQ(found, numbers[which]) << which;
      outside->read(found.data(), which * bytes, bytes);
      EXPECT_EQ(found, numbers[which]) << which;
    }
    emulator::run_late(false);
  }
}

// The host learns of it at the latest when it asks, after the device has used what was to come.
TEST(OffloadToDisk, ADiskThatFailsIsSaid) {
  const TemporaryDirectory directory;
  CudaBackend backend;
  Arena arena(backend.reserve(1 << 20), 1 << 20);
  backend.bind(arena);
  cuda::OffloadToDisk outside(backend.runtime(), {"activations", 1 << 20, {directory.path.string(), true}});
  const Tensor place = backend.make({n}, DType::f32);
  outside.wait(outside.fetch(place, 1 << 19));
  outside.check();
  ASSERT_EQ(ftruncate(outside.descriptor(), 1 << 18), 0);
  outside.wait(outside.fetch(place, 1 << 19));
  for (const auto& act :
       {std::function<void()>([&] { outside.check(); }), std::function<void()>([&] { outside.fetch(place, 0); }),
        std::function<void()>([&] { outside.store(0, place); }), std::function<void()>([&] { outside.finish(); })})
    try {
      act();
      ADD_FAILURE() << "nothing is said";
    } catch (const Error& error) {
      EXPECT_TRUE(std::string(error.what()).starts_with("memory.offload: reading 0.0 MiB of activations in "))
          << error.what();
    }
}

}  // namespace
}  // namespace mixtape
