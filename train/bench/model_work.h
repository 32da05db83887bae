// What the operations of a model do in a micro-batch, by the tape's names: `bench train --profile`.
#pragma once

#include <string_view>

#include "core/model/transformer.h"
#include "train/bench/work.h"

namespace mixtape {

struct MicroBatchShape {
  int64_t sequences = 0;
  SequenceLengths lengths;
  int64_t element = 4;  // bytes
};

// The work of one row of a profile: all linear layers together, for example. Unknown (all 0) for names that are none of
// the model's.
Work model_work(const ModelSpec& spec, const MicroBatchShape& shape, std::string_view operation, bool backward);

}  // namespace mixtape
