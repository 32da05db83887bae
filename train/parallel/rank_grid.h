// The ranks of a run as a grid: in one direction those that share out each layer (parallel.tensor_parallel_size,
// neighbours), in the other those that have the same part of each layer and other data.
//
//   rank = number among data-parallel groups * T + number in the tensor-parallel group
#pragma once

#include <memory>

#include "core/communicator.h"

namespace mixtape {

class RankGrid {
 public:
  // All of them train whole layers.
  RankGrid(Communicator& all) : all_(&all), data_(&all), tensor_(&single_process()) {}
  // Groups of so many, which divides the number of ranks, share out each layer. All ranks make one alike.
  RankGrid(Communicator& all, int tensor_parallel_size);

  Communicator& all() const { return *all_; }
  // Those that have the same parts of layers as this one: what gradients are summed over, and what ZeRO shares out to.
  Communicator& data() const { return *data_; }
  // Those that compute the same micro-batches as this one.
  Communicator& tensor() const { return *tensor_; }

 private:
  Communicator *all_, *data_, *tensor_;
  std::shared_ptr<Communicator> own_data_, own_tensor_;
};

}  // namespace mixtape
