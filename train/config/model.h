// model: an architecture, named by a preset and by the axes of core/model/spec.h, each of which overrides the preset.
#pragma once

#include <string>
#include <tuple>

#include "core/model/spec.h"

namespace mixtape {

struct ModelConfig : ModelSpec {
  std::string preset;
};

constexpr auto fields(std::type_identity<ModelConfig>) {
  using C = ModelConfig;
  return std::tuple_cat(
      std::tuple{field("preset", &C::preset,
                       "a file of configs/presets without its .yaml, whose values hold where a key is not given",
                       Aliases{"model_name"}, allowed_on_resume)},
      fields(std::type_identity<ModelSpec>{}));
}

}  // namespace mixtape
