// Exchanges between GPUs: a queue of their own, ordered against `compute` by events.
#pragma once

#include <array>

#include "core/exchange.h"
#include "cuda/collectives.h"
#include "cuda/runtime.h"

namespace mixtape::cuda {

class QueuedExchange final : public Exchange {
 public:
  QueuedExchange(Runtime& runtime, Communicator& ranks);
  int rank() const override { return rank_; }
  int size() const override { return size_; }

  Ticket all_reduce(const Tensor& values) override;
  Ticket largest(const Tensor& values) override;
  Ticket all_to_all(const Tensor& from, std::span<const int64_t> counts, const Tensor& to) override;
  Ticket reduce_scatter(const Tensor& from, std::span<const int64_t> counts, const Tensor& to) override;
  Ticket all_gather(const Tensor& all, std::span<const int64_t> counts) override;
  Ticket copy(const Tensor& to, const Tensor& from) override;
  void wait(Ticket ticket) override;
  std::string fault() override { return collectives_.fault(); }

 private:
  void begin();
  Ticket end();

  // An exchange that is further back than these is waited for by the oldest of them, which is behind it.
  static constexpr int64_t remembered = 16;
  Runtime& runtime_;
  const int rank_, size_;
  Collectives collectives_;
  Event asked_;  // what `compute` had been asked for
  std::array<Event, remembered> done_;
  Ticket next_ = 0;
};

}  // namespace mixtape::cuda
