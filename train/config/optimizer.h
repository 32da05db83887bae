// optimizer: the update rule and its constants.
#pragma once

#include <array>
#include <tuple>

#include "core/base/fields.h"

namespace mixtape {

enum class OptimizerKind { adamw, adafactor, lamb, lion, muon, sgd };

constexpr auto names(std::type_identity<OptimizerKind>) {
  using E = OptimizerKind;
  return std::array{Named<E>{E::adamw, "adamw"}, Named<E>{E::adafactor, "adafactor"}, Named<E>{E::lamb, "lamb"},
                    Named<E>{E::lion, "lion"},   Named<E>{E::muon, "muon"},           Named<E>{E::sgd, "sgd"}};
}

struct OptimizerConfig {
  OptimizerKind name = OptimizerKind::adamw;
  double lr = 6e-4;
  std::array<double, 2> betas = {0.9, 0.95};
  double eps = 1e-8;
  double weight_decay = 0.1;
};

constexpr auto fields(std::type_identity<OptimizerConfig>) {
  using C = OptimizerConfig;
  return std::tuple{
      field("name", &C::name, "the update rule",
            refused_on_resume("its state in the checkpoint belongs to it; start a new run with run.init_from")),
      field("lr", &C::lr, "peak learning rate, reached after schedule.warmup_steps", Range{0, 10},
            Aliases{"learning_rate", "max_lr"}),
      field("betas", &C::betas, "decay of the first and the second moment", from_to_below(0, 1)),
      field("eps", &C::eps, "added to the root of the second moment", above_up_to(0, 1),
            Aliases{"adam_eps", "epsilon"}),
      field("weight_decay", &C::weight_decay,
            "decoupled decay of parameters with two or more dimensions; norms and biases have none", Range{0, 10}),
  };
}

}  // namespace mixtape
