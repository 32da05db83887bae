#include "train/optim/lora.h"

#include "core/base/error.h"
#include "core/model/transformer.h"
#include "train/checkpoint/huggingface/model.h"
#include "train/optim/parameter_groups.h"

namespace mixtape {

LoraSpec lora_of(const Config& config) {
  const LoraConfig& c = config.lora;
  if (c.rank == 0) return {};
  // Linear layers of blocks: tables and heads have no adapters.
  constexpr std::string_view suffix = ".weight";
  std::vector<std::string> layers;
  const Transformer model(config.model, 1, 1);
  for (const ParameterEntry& entry : model.layout().entries())
    if (entry.shape.rank() == 2 && entry.name.find("layers.") != entry.name.npos && entry.name.ends_with(suffix))
      layers.push_back(entry.name.substr(0, entry.name.size() - suffix.size()));
  return {.rank = c.rank, .alpha = c.alpha, .dropout = c.dropout, .layers = chosen(layers, c.targets, "lora.targets")};
}

std::vector<std::string> frozen_parameters(const ParameterLayout& layout, const Config& config) {
  std::vector<std::string> names;
  for (const ParameterEntry& entry : layout.entries()) names.push_back(entry.name);
  if (config.lora.rank == 0) return chosen(names, config.parameters.freeze, "parameters.freeze");
  const bool labels = predicts_labels(config.objective.name);
  std::erase_if(names, [&](const std::string& name) { return is_adapter(name) || (labels && is_of_head(name)); });
  return names;
}

}  // namespace mixtape
