// Rotary position settings in config.json: transformers 5 keeps them in `rope_parameters`, transformers 4 in
// `rope_theta` and `rope_scaling`, and neither reads the other's. Both are written, either is read.
#pragma once

#include "train/checkpoint/huggingface/family.h"

namespace mixtape::huggingface {

// Fills rope_theta, rope_fraction and rope_scaling; spec.max_positions must be set before.
void read_rope(const ConfigReader& config, ModelSpec& spec);
void write_rope(const ModelSpec& spec, Json& config);

}  // namespace mixtape::huggingface
