#include "train/parallel/lane_fold.h"

#include <algorithm>
#include <bit>

#include "core/ops/cast.h"

namespace mixtape {

LaneFold::LaneFold(Tensor sum, int rank, int ranks, const std::vector<int64_t>& counts, Backend& backend)
    : sum_(std::move(sum)), backend_(backend), lanes_here_(lanes / ranks), first_lane_(rank * lanes_here_) {
  counting_ = true;
  for (const int64_t count : counts) {
    const int64_t first = count * rank / ranks, end = count * (rank + 1) / ranks;
    begin(count, first);
    for (int64_t i = 0; i < end - first; ++i) after(i);
    finish();
  }
  counting_ = false;
  for (Waiting& w : waiting_)
    if (w.needed) w.buffer = backend.make(sum_.shape(), sum_.dtype(), Category::gradients);
}

void LaneFold::begin(int64_t micro_batches, int64_t first) {
  micro_batches_ = micro_batches;
  first_ = first;
  next_lane_ = 0;
  has_sum_ = false;
  skip_empty_lanes(first);
}

int LaneFold::lane_of(int64_t micro_batch) const {
  int lane = 0;
  while (lane < lanes && micro_batches_ * (lane + 1) / lanes <= micro_batch) ++lane;
  return lane;
}

// Those before the lane of the micro-batch that comes next, whose gradients will overwrite the sum.
void LaneFold::skip_empty_lanes(int64_t next) {
  const int end = std::min(lane_of(next) - first_lane_, lanes_here_);
  while (next_lane_ < end) end_lane(false);
}

bool LaneFold::starts_lane(int64_t i) const { return i == 0 || lane_of(first_ + i) != lane_of(first_ + i - 1); }

void LaneFold::after(int64_t i) {
  const int lane = lane_of(first_ + i);
  if (lane - first_lane_ >= lanes_here_)
    throw Error("lane fold: micro-batch {} of {} belongs to another rank", first_ + i, micro_batches_);
  if (micro_batches_ * (lane + 1) / lanes > first_ + i + 1) return;  // it goes on
  end_lane(true);
  skip_empty_lanes(first_ + i + 1);
}

bool LaneFold::finish() {
  skip_empty_lanes(micro_batches_);
  return has_sum_;
}

int LaneFold::waits_at(int lane) const {
  const int level = std::countr_one(unsigned(lane));
  return (1 << level) == lanes_here_ ? -1 : level;
}

// The subtrees that end with this lane are complete: each is joined with its left neighbour, which has waited for it.
void LaneFold::end_lane(bool has_gradients) {
  const int lane = next_lane_++;
  has_sum_ = has_gradients;
  for (int level = 0; (lane >> level) & 1; ++level) {
    if (!waiting_[level].occupied) continue;
    join(waiting_[level].buffer, has_sum_);
    waiting_[level].occupied = false;
    has_sum_ = true;
  }
  const int level = waits_at(lane);
  if (level < 0 || !has_sum_) return;
  waiting_[level].occupied = waiting_[level].needed = true;
  keep(waiting_[level].buffer);
}

void LaneFold::join(const Tensor& waiting, bool has_sum) {
  if (counting_) return;
  backend_.cast().convert({.y = {sum_, has_sum ? Write::accumulate : Write::overwrite}, .x = waiting});
}

void LaneFold::keep(const Tensor& place) {
  if (counting_) return;
  if (!place) throw Error("lane fold: a step of {} micro-batches, which this run should not have", micro_batches_);
  backend_.cast().convert({.y = {place, Write::overwrite}, .x = sum_});
}

}  // namespace mixtape
