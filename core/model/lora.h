// Low-rank adapters (LoRA, Hu et al., arXiv 2106.09685): a linear layer W that does not change, and beside it a product
// of two thin matrices that learns.
//
//   y = x W^T + b + (alpha / rank) dropout(x) A^T B^T        A: [rank, in], B: [out, rank]
//
// B starts at zero, so the model starts as it was; A with the variance 1 / (3 in) that PyTorch gives a linear layer.
// Merging adds (alpha / rank) B A to W, and the layer is an ordinary one again. Parameters are named after the layer:
// `layers.0.attention.qkv.lora_a`.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace mixtape {

struct LoraSpec {
  int64_t rank = 0;  // 0: no adapters
  double alpha = 16;
  double dropout = 0;
  std::vector<std::string> layers;  // those that have one: names without `.weight`

  double scale() const { return alpha / double(rank); }
};

inline bool is_adapter(std::string_view parameter) {
  return parameter.ends_with(".lora_a") || parameter.ends_with(".lora_b");
}

}  // namespace mixtape
