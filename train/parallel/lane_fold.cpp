#include "train/parallel/lane_fold.h"

#include <algorithm>
#include <bit>

#include "core/base/error.h"

namespace mixtape {
namespace {

constexpr int lane_so_far = 0;
constexpr int subtree(int level) { return 1 + level; }

}  // namespace

void LaneFold::begin(int64_t micro_batches, int64_t first, int64_t here) {
  micro_batches_ = micro_batches;
  next_lane_ = 0;
  occupied_ = {};
  moves_.assign(1, {});  // of empty lanes before the first micro-batch, where nothing waits yet
  skip_empty_lanes(first);
  moves_.clear();
  for (int64_t i = first; i < first + here; ++i) {
    const int lane = lane_of(i);
    if (lane - first_lane_ >= lanes_here_ || lane < first_lane_)
      throw Error("lane fold: micro-batch {} of {} belongs to another rank", i, micro_batches);
    std::vector<Move>& moves = moves_.emplace_back();
    if (occupied_[lane_so_far]) moves.push_back({Move::add, lane_so_far});
    const bool goes_on = micro_batches * (lane + 1) / lanes > i + 1;
    occupied_[lane_so_far] = goes_on;
    if (goes_on) {
      moves.push_back({Move::keep, lane_so_far});
      continue;
    }
    end_lane(true);
    skip_empty_lanes(i + 1);
  }
}

std::array<bool, LaneFold::places> LaneFold::needed(int owner, int owners, const std::vector<int64_t>& counts) {
  std::array<bool, places> needed{};
  LaneFold fold(owner, owners);
  for (const int64_t count : counts) {
    const int64_t first = count * owner / owners, end = count * (owner + 1) / owners;
    fold.begin(count, first, end - first);
    for (const std::vector<Move>& moves : fold.moves_)
      for (const Move& move : moves) needed[size_t(move.place)] = true;
  }
  return needed;
}

int LaneFold::lane_of(int64_t micro_batch) const {
  int lane = 0;
  while (lane < lanes && micro_batches_ * (lane + 1) / lanes <= micro_batch) ++lane;
  return lane;
}

// Those before the lane of the micro-batch that comes next.
void LaneFold::skip_empty_lanes(int64_t next) {
  const int end = std::min(lane_of(next) - first_lane_, lanes_here_);
  while (next_lane_ < end) end_lane(false);
}

int LaneFold::waits_at(int lane) const {
  const int level = std::countr_one(unsigned(lane));
  return (1 << level) == lanes_here_ ? -1 : level;
}

// The subtrees that end with this lane are complete: each is joined with its left neighbour, which has waited for it.
void LaneFold::end_lane(bool has_gradients) {
  std::vector<Move>& moves = moves_.back();
  const int lane = next_lane_++;
  bool any = has_gradients;
  for (int level = 0; (lane >> level) & 1; ++level) {
    bool& waits = occupied_[size_t(subtree(level))];
    if (!waits) continue;
    moves.push_back({any ? Move::add : Move::take, subtree(level)});
    waits = false;
    any = true;
  }
  const int level = waits_at(lane);
  if (level < 0 || !any) return;
  occupied_[size_t(subtree(level))] = true;
  moves.push_back({Move::keep, subtree(level)});
}

}  // namespace mixtape
