// What the operations of a model do in a micro-batch, by the tape's names: `bench train --profile`.
#pragma once

#include <string_view>

#include "core/model/spec.h"
#include "train/bench/work.h"

namespace mixtape {

// The work of one row of a profile: all linear layers together, for example. `rows` tokens in sequences of `length`,
// elements of `element` bytes. Unknown (all 0) for names that are none of the model's.
Work model_work(const ModelSpec& spec, int64_t rows, int64_t length, int64_t element, std::string_view operation,
                bool backward);

}  // namespace mixtape
