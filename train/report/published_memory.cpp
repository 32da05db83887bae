#include "train/report/published_memory.h"

namespace mixtape {

const std::vector<PublishedMemory>& published_memory() {
  static const std::vector<PublishedMemory> published = {
      {"rule of thumb, with activations", 24, "4 of weights and 20 more: what courses and guides tell"},
      {"Megatron-LM, fp16", 20, "its page on the distributed optimizer"},
      {"Hugging Face, mixed precision", 18, "transformers' page on the anatomy of a model's memory"},
      {"ZeRO's baseline, fp16", 16, "Rajbhandari et al., arXiv 1910.02054: 2 + 2 + 12"},
      {"llmq, bf16 without master", 12, "its README: fp32 moments, stochastic rounding"},
      {"llmq, bf16 moments", 8, "its README"},
  };
  return published;
}

}  // namespace mixtape
