// lora: low-rank adapters in place of learning all weights.
#pragma once

#include <string>
#include <tuple>
#include <vector>

#include "core/base/fields.h"

namespace mixtape {

struct LoraConfig {
  int64_t rank = 0;
  double alpha = 16;
  double dropout = 0;
  std::vector<std::string> targets = {"*attention.*"};
};

constexpr auto fields(std::type_identity<LoraConfig>) {
  using C = LoraConfig;
  return std::tuple{
      field("rank", &C::rank, "of the adapters, which alone learn (and a head of labels); 0: none", Range{0, 65536},
            Aliases{"r"}),
      field("alpha", &C::alpha, "the adapter's output is multiplied by alpha / rank", above(0), Aliases{"lora_alpha"}),
      field("dropout", &C::dropout, "of the adapter's input, rounded to k / 256", from_to_below(0, 1),
            Aliases{"lora_dropout"}),
      field("targets", &C::targets,
            "linear layers that get one: patterns of names without .weight, such as *.attention.qkv or *.mlp.*",
            Aliases{"target_modules"}),
  };
}

}  // namespace mixtape
