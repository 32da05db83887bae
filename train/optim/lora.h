// Which layers have adapters, and what of the model learns then.
#pragma once

#include <string>
#include <vector>

#include "core/model/lora.h"
#include "core/parameters.h"
#include "train/config/config.h"

namespace mixtape {

// Rank 0 where the configuration asks for none. Throws ConfigError for a pattern that matches no linear layer.
LoraSpec lora_of(const Config& config);

// The parameters that do not learn: by parameters.freeze, or all but adapters and a head of labels. `layout` is that of
// the model with its adapters.
std::vector<std::string> frozen_parameters(const ParameterLayout& layout, const Config& config);

}  // namespace mixtape
