// mixtape generate MODEL --fill-mask TEXT: what an encoder puts in place of masks.
#pragma once

#include <cstdint>
#include <string>

#include "train/cli/arguments.h"

namespace mixtape {

// Prints the `count` likeliest tokens for each mask of the text, with their probabilities. [MASK] stands for the
// tokenizer's own mask token too.
void fill_mask(const ModelArguments& model, const std::string& text, int64_t count);

}  // namespace mixtape
