// Weights as files have them: whole, whatever ranks have of them, one parameter in memory at a time.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "core/parameters.h"
#include "train/checkpoint/huggingface/model.h"
#include "train/parallel/rank_grid.h"

namespace mixtape {

class WholeWeights {
 public:
  WholeWeights(const Parameters& parameters, Backend& backend, const RankGrid& grid);

  // All ranks alike: puts a parameter together on rank `to`, in place of the one that was there. Ranks that have
  // nothing to do with it return at once.
  void bring(const std::string& parameter, int to);
  // That one. Of weights that this rank has by itself any; it lasts until the next call. The type is that of all
  // weights.
  ParameterView operator()(const std::string& parameter);

 private:
  // Those that have the parameter together.
  Communicator& owners_of(const ParameterEntry& entry) const;

  const Parameters& parameters_;
  const RankGrid& grid_;
  FlatState weights_;
  std::vector<Shards::Part> parts_;  // of this rank
  std::string held_;
  std::vector<std::byte> bytes_;
};

}  // namespace mixtape
