#include "train/parallel/rank_grid.h"

#include "core/base/error.h"

namespace mixtape {

RankGrid::RankGrid(Communicator& all, int tensor_parallel_size) : RankGrid(all) {
  const int size = tensor_parallel_size, groups = all.size() / size;
  if (size == 1) return;
  if (all.size() % size) throw Error("ranks: groups of {} among {}", size, all.size());
  own_tensor_ = all.split(all.rank() / size, size);
  own_data_ = all.split(all.rank() % size, groups);
  tensor_ = own_tensor_.get();
  data_ = own_data_.get();
}

}  // namespace mixtape
