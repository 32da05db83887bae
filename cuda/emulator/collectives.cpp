// MPI's collectives, on the memory that plays the device's.
#include "cuda/collectives.h"

#include <numeric>
#include <vector>

#include "core/exchange.h"
#include "cuda/emulator/runtime.h"

namespace mixtape::cuda {

struct Collectives::State {
  Runtime& runtime;
  Communicator& ranks;
  std::unique_ptr<Exchange> host = host_exchange(ranks);
  void queue(std::function<void()> work) { emulator::queue(runtime, std::move(work), Queue::communication); }
};

Collectives::Collectives(Runtime& runtime, Communicator& ranks) : state_(new State{runtime, ranks}) {}
Collectives::~Collectives() = default;

void Collectives::all_reduce(float* values, int64_t count) {
  state_->queue([=, s = state_.get()] { s->ranks.all_reduce(std::span(values, size_t(count))); });
}

void Collectives::all_reduce(int64_t* values, int64_t count) {
  state_->queue([=, s = state_.get()] { s->ranks.all_reduce(std::span(values, size_t(count))); });
}

void Collectives::largest(int32_t* values, int64_t count) {
  const Tensor bits(reinterpret_cast<std::byte*>(values), {count}, DType::f32);
  state_->queue([=, s = state_.get()] { s->host->largest(bits); });
}

void Collectives::all_to_all(const float* from, std::span<const int64_t> counts, float* to) {
  state_->queue([=, s = state_.get(), counts = std::vector(counts.begin(), counts.end())] {
    const int64_t all = std::accumulate(counts.begin(), counts.end(), int64_t(0));
    const auto arrives = size_t(counts[size_t(s->ranks.rank())]) * size_t(s->ranks.size());
    s->ranks.all_to_all({from, size_t(all)}, counts, {to, arrives});
  });
}

void Collectives::reduce_scatter(const float* from, std::span<const int64_t> counts, float* own) {
  state_->queue([=, s = state_.get(), counts = std::vector(counts.begin(), counts.end())] {
    const int64_t all = std::accumulate(counts.begin(), counts.end(), int64_t(0));
    std::vector<float> sum(
        static_cast<size_t>(counts[size_t(s->ranks.rank())]));  // MPI's `to` may be no part of `from`
    s->ranks.reduce_scatter({from, size_t(all)}, counts, sum);
    std::copy(sum.begin(), sum.end(), own);
  });
}

void Collectives::all_gather(std::byte* all, std::span<const int64_t> bytes) {
  state_->queue([=, s = state_.get(), bytes = std::vector(bytes.begin(), bytes.end())] {
    s->ranks.all_gather({all, size_t(std::accumulate(bytes.begin(), bytes.end(), int64_t(0)))}, bytes);
  });
}

std::string Collectives::fault() { return {}; }
std::string Collectives::version(std::string&) { return "emulated over MPI"; }

}  // namespace mixtape::cuda
