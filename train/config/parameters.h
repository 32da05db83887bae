// parameters: which of the model's parameters learn, and how fast.
#pragma once

#include <string>
#include <tuple>
#include <vector>

#include "core/base/fields.h"

namespace mixtape {

struct ParameterGroupConfig {
  std::string match;
  double lr_factor = 1;
  double weight_decay_factor = 1;
};

constexpr auto fields(std::type_identity<ParameterGroupConfig>) {
  using C = ParameterGroupConfig;
  return std::tuple{
      field("match", &C::match, "a pattern of names, as in freeze"),
      field("lr_factor", &C::lr_factor, "their learning rate is this times the run's", Range{0, 1e6}),
      field("weight_decay_factor", &C::weight_decay_factor,
            "their decay is this times optimizer.weight_decay (norms and biases have none)", Range{0, 1e6}),
  };
}

struct ParametersConfig {
  std::vector<std::string> freeze;
  std::vector<ParameterGroupConfig> groups;
};

constexpr auto fields(std::type_identity<ParametersConfig>) {
  using C = ParametersConfig;
  return std::tuple{
      field("freeze", &C::freeze,
            "parameters that do not learn, and take no memory for gradients and optimizer: patterns of names with *, ? "
            "and [0-9], such as embedding.* or layers.[0-5].*. `mixtape plan` lists the names with --parameters",
            refused_on_resume("the optimizer's state in the checkpoint is of those that learn; start a new run with "
                              "run.init_from")),
      field("groups", &C::groups, "factors by name; of several that match, the last counts"),
  };
}

}  // namespace mixtape
