#include "cuda/exchange.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "core/base/error.h"

namespace mixtape::cuda {
namespace {

void expect_parts(const char* what, const Tensor& whole, std::span<const int64_t> counts) {
  const int64_t sum = std::accumulate(counts.begin(), counts.end(), int64_t(0));
  if (sum != whole.count()) throw Error("{}: parts of {} elements in all, of {}", what, sum, whole.count());
}

}  // namespace

QueuedExchange::QueuedExchange(Runtime& runtime, Communicator& ranks)
    : runtime_(runtime),
      rank_(ranks.rank()),
      size_(ranks.size()),
      collectives_(runtime, ranks),
      asked_(runtime.make_event()) {
  for (Event& event : done_) event = runtime.make_event();
}

void QueuedExchange::begin() {
  runtime_.record(asked_, Queue::compute);
  runtime_.wait(asked_, Queue::communication);
}

QueuedExchange::Ticket QueuedExchange::end() {
  runtime_.record(done_[size_t(next_ % remembered)], Queue::communication);
  return next_++;
}

QueuedExchange::Ticket QueuedExchange::all_reduce(const Tensor& values) {
  begin();
  if (values.dtype() == DType::f32)
    collectives_.all_reduce(values.data<float>(), values.count());
  else if (values.dtype() == DType::i64)
    collectives_.all_reduce(values.data<int64_t>(), values.count());
  else
    throw Error("all_reduce: {}, expected fp32 or i64", values.dtype());
  return end();
}

// As integers they are ordered like the numbers, with NaN above infinity.
QueuedExchange::Ticket QueuedExchange::largest(const Tensor& values) {
  if (values.dtype() != DType::f32) throw Error("largest: {}, expected fp32", values.dtype());
  begin();
  collectives_.largest(reinterpret_cast<int32_t*>(values.raw()), values.count());
  return end();
}

QueuedExchange::Ticket QueuedExchange::all_to_all(const Tensor& from, std::span<const int64_t> counts,
                                                  const Tensor& to) {
  expect_parts("all_to_all", from, counts);
  const int64_t own = counts[size_t(rank_)];
  if (from.dtype() != DType::f32 || (own > 0 && to.dtype() != DType::f32))
    throw Error("all_to_all: {}, expected fp32", from.dtype());
  if ((to ? to.count() : 0) != own * size_) throw Error("all_to_all: {} elements each from {} ranks", own, size_);
  begin();
  collectives_.all_to_all(from.data<float>(), counts, to ? to.data<float>() : nullptr);
  return end();
}

QueuedExchange::Ticket QueuedExchange::reduce_scatter(const Tensor& from, std::span<const int64_t> counts,
                                                      const Tensor& to) {
  expect_parts("reduce_scatter", from, counts);
  if (from.dtype() != DType::f32 || (to && to.dtype() != DType::f32))
    throw Error("reduce_scatter: {}, expected fp32", from.dtype());
  begin();
  collectives_.reduce_scatter(from.data<float>(), counts, to ? to.data<float>() : nullptr);
  return end();
}

QueuedExchange::Ticket QueuedExchange::all_gather(const Tensor& all, std::span<const int64_t> counts) {
  expect_parts("all_gather", all, counts);
  std::vector<int64_t> bytes;
  for (const int64_t count : counts) bytes.push_back(count * size_of(all.dtype()));
  begin();
  collectives_.all_gather(all.raw(), bytes);
  return end();
}

QueuedExchange::Ticket QueuedExchange::copy(const Tensor& to, const Tensor& from) {
  if (to.bytes() != from.bytes()) throw Error("copy: {} bytes to {}", from.bytes(), to.bytes());
  begin();
  runtime_.copy(to.raw(), from.raw(), from.bytes(), Queue::communication);
  return end();
}

void QueuedExchange::wait(Ticket ticket) {
  if (next_ == 0) return;
  const Ticket behind = std::clamp(ticket, std::max<Ticket>(0, next_ - remembered), next_ - 1);
  runtime_.wait(done_[size_t(behind % remembered)], Queue::compute);
}

}  // namespace mixtape::cuda
