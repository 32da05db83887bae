#include "train/objective/loader.h"

#include <algorithm>
#include <numeric>

#include "core/base/clock.h"
#include "core/base/error.h"

namespace mixtape {

Loader::Loader(const Objective& objective, const LoaderOptions& options) : objective_(objective), options_(options) {
  if (options.world < 1 || options.rank < 0 || options.rank >= options.world)
    throw ConfigError("rank {} of {} ranks", options.rank, options.world);
  const int64_t unit = int64_t(options.micro_batch_size) * options.world;
  if (options.micro_batch_size < 1 || options.global_batch_size < 1 || options.global_batch_size % unit != 0)
    throw ConfigError(
        "train.global_batch_size is {}, expected a multiple of train.micro_batch_size ({}) times the "
        "number of ranks ({})",
        options.global_batch_size, options.micro_batch_size, options.world);
  // One slot is in the hands of the consumer while `depth` are being filled.
  ring_.resize(size_t(std::max(options.depth, 1)) + 1);
  thread_ = std::thread([this] { run(); });
}

Loader::~Loader() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  taken_changed_.notify_all();
  thread_.join();
}

const GlobalBatch& Loader::next() {
  std::unique_lock lock(mutex_);
  released_ = taken_;
  taken_changed_.notify_one();
  if (filled_ <= taken_ && !error_) {
    const auto begin = Clock::now();
    filled_changed_.wait(lock, [&] { return filled_ > taken_ || error_; });
    stall_seconds_ += seconds_since(begin);
  }
  if (filled_ <= taken_) std::rethrow_exception(error_);
  return ring_[taken_++ % ring_.size()];
}

void Loader::run() {
  uint64_t first = options_.first_sample;
  for (uint64_t step = 0;; ++step) {
    {
      std::unique_lock lock(mutex_);
      taken_changed_.wait(lock, [&] { return stop_ || step < released_ + ring_.size(); });
      if (stop_) return;
    }
    std::exception_ptr error;
    try {
      const int64_t samples = options_.batch_size_at ? options_.batch_size_at(first) : options_.global_batch_size;
      fill(first, samples, ring_[step % ring_.size()]);
      first += uint64_t(samples);
    } catch (...) {
      error = std::current_exception();
    }
    const std::lock_guard lock(mutex_);
    error ? void(error_ = error) : void(filled_ = step + 1);
    filled_changed_.notify_one();
    if (error) return;
  }
}

void Loader::fill(uint64_t first_sample, int64_t samples_of_step, GlobalBatch& batch) const {
  const int64_t micro_batches = samples_of_step / options_.micro_batch_size;
  const int64_t rank = options_.rank, world = options_.world, turns = options_.in_turns ? world : 1;
  const int64_t begin = options_.in_turns ? rank : micro_batches * rank / world;
  const int64_t end = options_.in_turns ? micro_batches : micro_batches * (rank + 1) / world;
  batch.first_sample = first_sample;
  batch.first_micro_batch = uint64_t(begin);
  batch.stride = turns;
  batch.of_micro_batches = micro_batches;
  batch.micro_batches.resize(size_t(std::max<int64_t>(end - begin + turns - 1, 0) / turns));
  batch.n_tokens = batch.n_targets = 0;
  std::vector<uint64_t> samples(size_t(options_.micro_batch_size));
  uint64_t number = batch.first_micro_batch;
  for (Batch& micro : batch.micro_batches) {
    std::iota(samples.begin(), samples.end(), batch.first_sample + number * samples.size());
    number += uint64_t(turns);
    objective_.fill(samples, micro);
    batch.n_tokens += micro.n_tokens;
    batch.n_targets += micro.n_targets;
  }
}

}  // namespace mixtape
