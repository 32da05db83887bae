#include "core/exchange.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <vector>

#include "core/base/error.h"

namespace mixtape {
namespace {

template <class T>
std::span<T> values_of(const Tensor& t) {
  return {t.data<T>(), size_t(t.count())};
}

class HostExchange final : public Exchange {
 public:
  explicit HostExchange(Communicator& ranks) : ranks_(ranks) {}
  int rank() const override { return ranks_.rank(); }
  int size() const override { return ranks_.size(); }

  Ticket all_reduce(const Tensor& values) override {
    if (values.dtype() == DType::i64)
      ranks_.all_reduce(values_of<int64_t>(values));
    else
      ranks_.all_reduce(values_of<float>(values));
    return 0;
  }
  Ticket largest(const Tensor& values) override {
    const auto n = size_t(values.count()), ranks = size_t(size());
    of_ranks_.resize(n * ranks);
    std::memcpy(of_ranks_.data() + n * size_t(rank()), values.raw(), n * sizeof(int32_t));
    bytes_.assign(ranks, int64_t(n * sizeof(int32_t)));
    ranks_.all_gather(std::as_writable_bytes(std::span(of_ranks_)), bytes_);
    auto* const bits = reinterpret_cast<int32_t*>(values.raw());  // ordered like the numbers, NaN above them
    for (size_t i = 0; i < of_ranks_.size(); ++i) bits[i % n] = std::max(bits[i % n], of_ranks_[i]);
    return 0;
  }
  Ticket all_to_all(const Tensor& from, std::span<const int64_t> counts, const Tensor& to) override {
    ranks_.all_to_all(values_of<float>(from), counts, values_of<float>(to));
    return 0;
  }
  Ticket reduce_scatter(const Tensor& from, std::span<const int64_t> counts, const Tensor& to) override {
    ranks_.reduce_scatter(values_of<float>(from), counts, to ? values_of<float>(to) : std::span<float>());
    return 0;
  }
  Ticket all_gather(const Tensor& all, std::span<const int64_t> counts) override {
    bytes_.clear();
    for (const int64_t count : counts) bytes_.push_back(count * size_of(all.dtype()));
    if (std::accumulate(bytes_.begin(), bytes_.end(), int64_t(0)) != all.bytes())
      throw Error("all_gather: parts that are not the whole of {} bytes", all.bytes());
    ranks_.all_gather({all.raw(), size_t(all.bytes())}, bytes_);
    return 0;
  }
  Ticket copy(const Tensor& to, const Tensor& from) override {
    if (to.bytes() != from.bytes()) throw Error("copy: {} bytes to {}", from.bytes(), to.bytes());
    std::memcpy(to.raw(), from.raw(), size_t(from.bytes()));
    return 0;
  }
  void wait(Ticket) override {}
  std::string fault() override { return {}; }

 private:
  Communicator& ranks_;
  std::vector<int64_t> bytes_;  // memory that is kept
  std::vector<int32_t> of_ranks_;
};

}  // namespace

std::unique_ptr<Exchange> host_exchange(Communicator& ranks) { return std::make_unique<HostExchange>(ranks); }

}  // namespace mixtape
