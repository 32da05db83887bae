// The order in which gradients are added in strict mode: the same on 1, 2, 4 or 8 ranks.
//
// The N micro-batches of a step form 8 lanes, lane l those from floor(l N / 8) to floor((l + 1) N / 8). A lane's
// gradients are added one after another; then lanes are added as a binary tree: (0 + 1) + (2 + 3), and so on. A rank of
// W owns 8 / W neighbouring lanes, a whole subtree, whose sum it makes here; ranks add theirs by the rest of the tree
// (gradient_reducer.h). An empty lane takes no part: not even a zero is added, which would change the sign of -0.
//
// While a subtree waits for its neighbour it takes a buffer as large as the gradients: up to log2(8 / W) of them.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "core/backend.h"

namespace mixtape {

class LaneFold {
 public:
  static constexpr int lanes = 8;

  // `sum`: the flat gradients, where backward adds and where the sum of this rank's lanes is at the end. `counts`: the
  // numbers of micro-batches that a step may have.
  LaneFold(Tensor sum, int rank, int ranks, const std::vector<int64_t>& counts, Backend& backend);

  // A step of so many micro-batches on all ranks; this rank's begin with number `first`.
  void begin(int64_t micro_batches, int64_t first);
  // Whether this rank's i-th micro-batch is its lane's first, whose gradients overwrite.
  bool starts_lane(int64_t i) const;
  // After backward of the i-th.
  void after(int64_t i);
  // After the last. Returns whether there was any: the sum is undefined without.
  bool finish();

 private:
  int lane_of(int64_t micro_batch) const;
  void skip_empty_lanes(int64_t next);
  void end_lane(bool has_gradients);
  // The level at which the subtree that ends with the lane waits for its neighbour; -1: it is this rank's whole.
  int waits_at(int lane) const;
  void join(const Tensor& waiting, bool has_sum);
  void keep(const Tensor& place);

  Tensor sum_;
  Backend& backend_;
  int lanes_here_, first_lane_;
  int64_t micro_batches_ = 0, first_ = 0;
  int next_lane_ = 0;  // of this rank, from 0
  bool has_sum_ = false;
  struct Waiting {
    Tensor buffer;
    bool occupied = false;
    bool needed = false;
  };
  std::array<Waiting, 3> waiting_;  // by level: subtrees of 1, 2 and 4 lanes
  bool counting_ = false;           // finds out which are needed
};

}  // namespace mixtape
