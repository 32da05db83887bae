// Models whose linear layers are stored as int8 codes, in the format of the package compressed-tensors, which
// transformers and vLLM read.
//
//   X.weight        I8 [out, in], row o holding round(w[o, i] / scale[o]) in [-127, 127] (others' files: from -128)
//   X.weight_scale  F32 [out, 1], the largest magnitude of the row / 127
//   config.json     quantization_config: "int-quantized", weights by channel, inputs by token and as they come (W8A8)
//
// The layers are those inside of blocks, all others are listed under "ignore". GPT-2's are no torch.nn.Linear but the
// transposed Conv1D, which that package leaves alone, so that codes would pass for weights. Such a model is written
// under model_type "mixtape" and Mixtape's own names, which transformers refuses to load.
// Source: https://github.com/neuralmagic/compressed-tensors (QuantizationConfig, IntQuantizationCompressor).
#pragma once

#include "train/checkpoint/huggingface/family.h"

namespace mixtape::huggingface {

// Whether a tensor is the weight of such a layer (or a part of it).
bool is_layer_weight(const TensorMapping& mapping);
std::string scale_name(const TensorMapping& mapping);

// Whether config.json says that the model is stored so. CheckpointError, naming what is different, for other
// quantisations.
bool reads_int8(const ConfigReader& config);
// The family whose names and config.json a model with int8 weights has.
const HfFamily& int8_family(const ModelSpec& spec);
// quantization_config.
Json int8_config(const ModelSpec& spec);

// Two tensors for one: codes and scales.
void add_int8_sources(const TensorMapping& mapping, const ParameterGetter& get, std::vector<TensorSource>& sources);

// CheckpointError unless both tensors are there with these types and shapes, and scales are finite and not negative.
void check_int8(const SafetensorsModel& files, const TensorMapping& mapping, const std::string& what);
// The part of a parameter that a mapping has: its codes [out, in] and scales [out], into the whole parameter's.
void read_int8(const SafetensorsModel& files, const TensorMapping& mapping, std::span<int8_t> codes,
               std::span<float> scales);

}  // namespace mixtape::huggingface
