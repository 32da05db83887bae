// One batch through a model, as `mixtape forward` and the tests of parity with other frameworks run it.
#pragma once

#include <vector>

#include "train/checkpoint/safetensors.h"
#include "train/engine.h"

namespace mixtape {

// A batch from int64 tensors in Hugging Face's form: input_ids [B, T]; optional attention_mask [B, T], 1 = real,
// padding only at the ends of a row; token_type_ids [B, T] where the model has types; labels, -100 = ignored: [B, T],
// of a decoder not shifted (labels[:, t + 1] is the target of position t), of an encoder where they are predicted. An
// encoder-decoder wants decoder_input_ids [B, U], may have decoder_attention_mask, and its labels are [B, U], not
// shifted either: labels[:, u] is the target of position u. Throws DataError for what is missing or malformed.
Batch batch_from_inputs(const SafetensorsFile& file, const ModelSpec& spec);

// The logits of the batch that the engine has loaded, [B * T * V] (of a head of labels V is their number, at every
// token); empty while planning.
std::vector<float> logits_of(Engine& engine);

}  // namespace mixtape
