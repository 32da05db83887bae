#include "train/parallel/weight_gatherer.h"

#include <cstring>
#include <utility>

#include "train/parallel/watchdog.h"

namespace mixtape {

WeightGatherer::WeightGatherer(Parameters& parameters, Backend& backend, Communicator& ranks, Exchange* device)
    : parameters_(parameters), backend_(backend), ranks_(ranks), device_(device) {
  parameters.set_weight_source(this);
}

WeightGatherer::~WeightGatherer() {
  if (std::uncaught_exceptions() == 0) forget();
  parameters_.set_weight_source(nullptr);
}

void WeightGatherer::begin_micro_batch() {
  forget();
  training_ = true;
  at_ = 0;
  if (!knows_order_) order_.clear();
}

void WeightGatherer::end_micro_batch() {
  knows_order_ = true;
  training_ = false;
  forget();
}

// Jobs on their way use the memory.
void WeightGatherer::forget() {
  if (next_.weights) wait_for(next_);
  now_ = next_ = {};
}

Tensor WeightGatherer::weights_of(int bucket) {
  if (now_.bucket != bucket) go_to(bucket);
  return now_.weights;
}

void WeightGatherer::go_to(int bucket) {
  now_ = {};
  if (next_.bucket != bucket) {
    forget();
    fetch(next_, bucket);
  }
  wait_for(next_);
  now_ = std::exchange(next_, {});
  if (!training_) return;
  if (!knows_order_) order_.push_back(bucket);
  ++at_;
  if (const int next = next_in_order(); next >= 0) fetch(next_, next);
}

// -1: none is known, or it is here.
int WeightGatherer::next_in_order() const { return knows_order_ && at_ < order_.size() ? order_[at_] : -1; }

void WeightGatherer::fetch(Held& to, int bucket) {
  const Run run = parameters_.buckets()[bucket].run;
  to = {bucket, backend_.make({run.count}, parameters_.weights.dtype(), Category::parameters), 0};
  if (backend_.planning()) return;
  if (device_) {
    to.job = gather_on_device(to);
    return;
  }
  // Of the memory the job knows the place alone: tensors are this thread's.
  std::byte* const whole = to.weights.raw();
  const int64_t size = size_of(to.weights.dtype());
  to.job = ranks_.post("gather of weights", [this, bucket, run, whole, size](Communicator& c) {
    const Shards& shards = parameters_.shards();
    const Shards::Part& own = shards.of_bucket(bucket, shards.sharding().rank);
    const Tensor mine = parameters_.own_weights(own);
    if (own.run.count > 0) std::memcpy(whole + (own.run.begin - run.begin) * size, mine.raw(), size_t(mine.bytes()));
    std::vector<int64_t> bytes = shards.counts_of(bucket);
    for (int64_t& n : bytes) n *= size;
    c.all_gather({whole, size_t(run.count * size)}, bytes);
  });
}

int64_t WeightGatherer::gather_on_device(const Held& to) {
  const Run run = parameters_.buckets()[to.bucket].run;
  const Shards& shards = parameters_.shards();
  const Shards::Part& own = shards.of_bucket(to.bucket, shards.sharding().rank);
  if (own.run.count > 0)
    device_->copy(Parameters::part(to.weights, {own.run.begin - run.begin, own.run.count}),
                  parameters_.own_weights(own));
  return device_->all_gather(to.weights, shards.counts_of(to.bucket));
}

void WeightGatherer::wait_for(const Held& held) {
  if (backend_.planning()) return;
  if (device_) return device_->wait(held.job);
  const Phase phase("gather of weights", Phase::waits);
  ranks_.wait(held.job);
}

}  // namespace mixtape
