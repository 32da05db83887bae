// Low-rank adapters (core/model/lora.h) in PEFT's format: adapter_config.json and adapter_model.safetensors.
//
//   base_model.model.<module>.lora_A.weight   [rank, in]
//   base_model.model.<module>.lora_B.weight   [rows of the module, rank]
//
// Where a layer of Mixtape's is several modules (q, k and v of LLaMA or BERT), they share A, which the file then has
// once for each. So every such adapter is one of PEFT's, but only adapters that share A can be read back: those that
// Mixtape wrote. https://huggingface.co/docs/peft/package_reference/lora
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "core/model/lora.h"
#include "train/checkpoint/huggingface/model.h"

namespace mixtape {

inline constexpr const char *adapter_config_name = "adapter_config.json",
                            *adapter_weights_name = "adapter_model.safetensors";

// The tensors of the parameters `<layer>.lora_a` and `.lora_b` of lora.layers, and of those of a head of labels, which
// belongs to what was learnt.
std::vector<TensorSource> adapter_sources(const ModelSpec& spec, const LoraSpec& lora, DType dtype,
                                          const ParameterGetter& get);
// Writes both files; `base` is the model that the adapter is for.
std::vector<FileRecord> write_adapter(const std::filesystem::path& directory, const ModelSpec& spec,
                                      const LoraSpec& lora, const std::string& base, std::vector<TensorSource> sources,
                                      const TensorWriter& write = write_alone);

// An adapter beside a model. `mappings` are the model's tensors.
class HfAdapter {
 public:
  // Rank 0 where the directory has none. Throws CheckpointError for files that contradict themselves or the model.
  static HfAdapter open(const std::filesystem::path& directory, const std::vector<TensorMapping>& mappings);

  const LoraSpec& lora() const { return lora_; }
  // A parameter of an adapter as it is stored; CheckpointError if that is another type.
  void read(std::string_view parameter, DType dtype, std::span<std::byte> out) const;
  // Adds (alpha / rank) B A to a weight, if its layer has an adapter.
  void merge_into(std::string_view weight, std::span<float> values) const;

 private:
  std::vector<float> values_of(const std::string& parameter) const;

  LoraSpec lora_;
  std::vector<TensorMapping> mappings_;
  std::vector<SafetensorsFile> files_;  // one, or none
};

}  // namespace mixtape
