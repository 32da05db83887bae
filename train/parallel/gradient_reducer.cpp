#include "train/parallel/gradient_reducer.h"

#include <algorithm>
#include <bit>

#include "core/ops/cast.h"
#include "train/parallel/watchdog.h"

namespace mixtape {
namespace {

// Elements that are exchanged at once: enough to hide latency, little enough for scratch memory. A multiple of every
// number of ranks in strict mode.
constexpr int64_t bucket_elements = 4 << 20;

// The numbers of micro-batches that steps of this run have.
std::vector<int64_t> micro_batch_counts(const Config& config) {
  const int64_t most = config.train.global_batch_size / config.train.micro_batch_size;
  if (config.train.batch_ramp.tokens == 0) return {most};
  std::vector<int64_t> counts;  // from 8 on every lane has some
  for (int64_t n = 1; n <= std::min<int64_t>(most, LaneFold::lanes); ++n) counts.push_back(n);
  return counts;
}

}  // namespace

Sharding sharding_of(const Config& config, const Communicator& ranks) {
  if (config.parallel.zero_stage == 0) return {};
  return {.rank = ranks.rank(), .ranks = ranks.size()};
}

GradientReducer::GradientReducer(const Config& config, Parameters& parameters, Backend& backend, Communicator& ranks)
    : parameters_(parameters), backend_(backend), ranks_(ranks) {
  if (ranks.size() > 1 && backend.name() != "cpu")
    throw ConfigError(
        "device: {} with {} processes, but so far they exchange gradients of the CPU only; use one "
        "process, or device: cpu",
        config.device, ranks.size());
  // Gradients that are fused into the update are of one micro-batch, whose order is its own.
  if (config.determinism == Determinism::strict && parameters.gradients)
    lanes_.emplace(parameters.gradients, ranks.rank(), ranks.size(), micro_batch_counts(config), backend);
  const Sharding sharding = parameters.storage().sharding;
  for (int r = 0; sharding.ranks > 1 && r < sharding.ranks; ++r)
    shard_bytes_.push_back(shard_of(parameters.layout().learning_flat_count(), {r, sharding.ranks}).count *
                           size_of(parameters.weights.dtype()));
}

StepCounts GradientReducer::begin(const GlobalBatch& batch) {
  here_ = int64_t(batch.micro_batches.size());
  micro_batches_ = batch.of_micro_batches > 0 ? batch.of_micro_batches : here_;
  first_ = int64_t(batch.first_micro_batch);
  if (lanes_) lanes_->begin(micro_batches_, first_);
  int64_t counts[] = {batch.n_tokens, batch.n_targets};
  if (!backend_.planning()) {
    const Phase phase("exchange of target counts", Phase::waits);
    ranks_.all_reduce(std::span(counts));
  }
  return {.tokens = counts[0], .targets = counts[1]};
}

void GradientReducer::after_micro_batch(int64_t i) {
  if (lanes_) lanes_->after(i);
}

// -0 is what can be added to any number without changing a bit of it; 0 would turn -0 into 0.
void GradientReducer::fill_with_nothing() {
  const Tensor& all = parameters_.gradients;
  const std::vector<float> nothing(size_t(std::min<int64_t>(all.count(), chunk_elements)), -0.f);
  for (int64_t at = 0; at < all.count(); at += int64_t(nothing.size()))
    backend_.copy_from_host(all.columns(at, std::min<int64_t>(int64_t(nothing.size()), all.count() - at)),
                            nothing.data());
}

void GradientReducer::sum_over_ranks() {
  const bool any = lanes_ ? lanes_->finish() : here_ > 0;
  const Tensor& gradients = parameters_.gradients;
  if (ranks_.size() == 1) return;
  const Phase phase("sum of gradients over ranks", Phase::waits);
  if (!any) fill_with_nothing();
  const std::span<float> all(backend_.planning() ? nullptr : gradients.data<float>(), size_t(gradients.count()));
  if (lanes_) return sum_in_order(all);
  if (backend_.planning()) return;
  for (size_t at = 0; at < all.size(); at += bucket_elements)
    ranks_.all_reduce(all.subspan(at, std::min<size_t>(bucket_elements, all.size() - at)));
}

// Each rank gets its part of a bucket from all, adds them as a tree, and gives the sum to all. The flat buffer is a
// multiple of 64 elements long, so that 2, 4 or 8 parts are equal.
void GradientReducer::sum_in_order(std::span<float> gradients) {
  const int64_t ranks = ranks_.size(), n = int64_t(gradients.size());
  const Tensor scratch = backend_.workspace({std::min(n, bucket_elements)}, DType::f32);
  if (backend_.planning()) return;
  for (int64_t at = 0; at < n; at += bucket_elements) {
    const int64_t count = std::min(bucket_elements, n - at), part = count / ranks;
    const std::span<float> bucket = gradients.subspan(size_t(at), size_t(count));
    part_counts_.assign(size_t(ranks), part);
    ranks_.all_to_all(bucket, part_counts_, std::span(scratch.data<float>(), size_t(count)));
    for (int64_t width = 1; width < ranks; width *= 2)
      for (int64_t i = 0; i + width < ranks; i += 2 * width)
        backend_.cast().convert({.y = {scratch.columns(i * part, part), Write::accumulate},
                                 .x = scratch.columns((i + width) * part, part)});
    std::copy_n(scratch.data<float>(), part, bucket.data() + part * ranks_.rank());
    part_bytes_.assign(size_t(ranks), part * int64_t(sizeof(float)));
    ranks_.all_gather(std::as_writable_bytes(bucket), part_bytes_);
  }
}

// A sum of bit patterns, each of them zero on all ranks but one, is exact.
double GradientReducer::total(std::span<const double> losses) {
  loss_bits_.assign(size_t(micro_batches_), 0);
  for (size_t i = 0; i < losses.size(); ++i) loss_bits_[size_t(first_) + i] = std::bit_cast<int64_t>(losses[i]);
  if (!backend_.planning()) {
    const Phase phase("exchange of losses", Phase::waits);
    ranks_.all_reduce(std::span(loss_bits_));
  }
  double sum = 0;
  for (const int64_t bits : loss_bits_) sum += std::bit_cast<double>(bits);
  return sum;
}

void GradientReducer::share_weights() {
  if (shard_bytes_.empty() || backend_.planning()) return;
  const Phase phase("exchange of updated weights", Phase::waits);
  const Tensor weights = parameters_.learning_weights();
  ranks_.all_gather({weights.raw(), size_t(weights.bytes())}, shard_bytes_);
}

}  // namespace mixtape
