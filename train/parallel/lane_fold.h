// The order in which gradients are added in strict mode: the same on 1, 2, 4 or 8 ranks.
//
// The N micro-batches of a step form 8 lanes, lane l those from floor(l N / 8) to floor((l + 1) N / 8). The gradients
// of a lane's micro-batches are added one after another; then lanes are added as a binary tree: (0 + 1) + (2 + 3), and
// so on. Of W owners each has 8 / W neighbouring lanes, a whole subtree, whose sum it makes by itself; what is left of
// the tree is gradient_reducer.h's. An empty lane takes no part: not even a zero is added, which would change the sign
// of -0.
//
// Each micro-batch's gradients come alone. What waits for others lies in one of four places, each as large as the
// gradients: the lane so far, and subtrees of 1, 2 and 4 lanes that wait for their neighbour.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

namespace mixtape {

class LaneFold {
 public:
  static constexpr int lanes = 8;
  static constexpr int places = 4;

  // What to do with the gradients that have come, in order. After the owner's last micro-batch they are the sum.
  struct Move {
    enum Kind {
      add,   // what lies in the place, to them
      take,  // what lies in the place, instead of them: nothing has come
      keep   // puts them there
    } kind;
    int place;
    friend bool operator==(const Move&, const Move&) = default;
  };

  LaneFold(int owner, int owners) : lanes_here_(lanes / owners), first_lane_(owner * lanes_here_) {}

  // A step of so many micro-batches, of which the owner's, `here`, begin with number `first`.
  void begin(int64_t micro_batches, int64_t first, int64_t here);
  // After the owner's i-th.
  std::span<const Move> moves(int64_t i) const { return moves_[size_t(i)]; }
  // Which places steps of these numbers of micro-batches need, of which the owner has all or its run.
  static std::array<bool, places> needed(int owner, int owners, const std::vector<int64_t>& counts);

 private:
  int lane_of(int64_t micro_batch) const;
  void skip_empty_lanes(int64_t next);
  void end_lane(bool has_gradients);
  // The level at which the subtree that ends with the lane waits for its neighbour; -1: it is the owner's whole.
  int waits_at(int lane) const;

  int lanes_here_, first_lane_;
  int64_t micro_batches_ = 0;
  int next_lane_ = 0;  // of the owner's, from 0
  std::array<bool, places> occupied_{};
  std::vector<std::vector<Move>> moves_;
};

}  // namespace mixtape
