// The normalizations of a tokenizer.json: the four Unicode forms, a prefix, a replacement.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "train/data/tokenizer/bpe_definition.h"

namespace mixtape {

// `text` after all steps. Bytes that are not UTF-8 become U+FFFD if a Unicode form is among the steps.
std::string normalize(const std::vector<NormalizerStep>& steps, std::string_view text);

}  // namespace mixtape
