// optimizer: the update rule and its constants.
#pragma once

#include <array>
#include <tuple>

#include "core/base/fields.h"

namespace mixtape {

enum class OptimizerKind { adamw, adam, adafactor, lamb, lion, muon, sgd };

constexpr auto names(std::type_identity<OptimizerKind>) {
  using E = OptimizerKind;
  return std::array{Named<E>{E::adamw, "adamw"}, Named<E>{E::adam, "adam"}, Named<E>{E::adafactor, "adafactor"},
                    Named<E>{E::lamb, "lamb"},   Named<E>{E::lion, "lion"}, Named<E>{E::muon, "muon"},
                    Named<E>{E::sgd, "sgd"}};
}

struct SgdConfig {
  double momentum = 0.9;
  bool nesterov = false;
};

constexpr auto fields(std::type_identity<SgdConfig>) {
  using C = SgdConfig;
  return std::tuple{
      field("momentum", &C::momentum, "decay of the sum of gradients that is followed; 0: none, which saves its memory",
            from_to_below(0, 1),
            refused_on_resume("the checkpoint has its sum or has none; start a new run with run.init_from")),
      field("nesterov", &C::nesterov, "the sum is followed as it will be with the same gradient once more"),
  };
}

struct MuonConfig {
  double momentum = 0.95;
  bool nesterov = true;
  int64_t iterations = 5;
};

constexpr auto fields(std::type_identity<MuonConfig>) {
  using C = MuonConfig;
  return std::tuple{
      field("momentum", &C::momentum, "decay of the sum of a matrix's gradients", from_to_below(0, 1)),
      field("nesterov", &C::nesterov, "the sum is taken as it will be with the same gradient once more"),
      field("iterations", &C::iterations, "of Newton and Schulz, towards the nearest orthogonal matrix", Range{1, 20}),
  };
}

struct AdafactorConfig {
  double decay_rate = 0.8;
  double clip_threshold = 1;
  double eps = 1e-30;
  double beta1 = 0;
};

constexpr auto fields(std::type_identity<AdafactorConfig>) {
  using C = AdafactorConfig;
  return std::tuple{
      field("decay_rate", &C::decay_rate, "the decay of second moments is 1 - t^-decay_rate at update t",
            above_up_to(0, 1)),
      field("clip_threshold", &C::clip_threshold,
            "a tensor's update, which should have a root mean square of 1, is scaled down to this where it has more",
            above_up_to(0, 1e6)),
      field("eps", &C::eps, "added to squared gradients", Range{1e-36, 1}),
      field("beta1", &C::beta1, "decay of a first moment of updates; 0: none, which saves its memory",
            from_to_below(0, 1),
            refused_on_resume("the checkpoint has its moments or has none; start a new run with run.init_from")),
  };
}

struct OptimizerConfig {
  OptimizerKind name = OptimizerKind::adamw;
  double lr = 6e-4;
  std::array<double, 2> betas = {0.9, 0.95};
  double eps = 1e-8;
  bool bias_correction = true;
  double weight_decay = 0.1;
  Auto<bool> scale_parameter;
  double least_scale = 1e-3;
  AdafactorConfig adafactor;
  SgdConfig sgd;
  MuonConfig muon;

  // Whether an update is of more than elements.
  bool looks_at_tensors() const {
    return name == OptimizerKind::adafactor || name == OptimizerKind::muon || scales_parameters();
  }
  bool scales_parameters() const { return scale_parameter.value_or(name == OptimizerKind::adafactor); }
};

constexpr auto fields(std::type_identity<OptimizerConfig>) {
  using C = OptimizerConfig;
  return std::tuple{
      field("name", &C::name, "the update rule",
            refused_on_resume("its state in the checkpoint belongs to it; start a new run with run.init_from")),
      field("lr", &C::lr, "peak learning rate, reached after schedule.warmup_steps", Range{0, 10},
            Aliases{"learning_rate", "max_lr"}),
      field(
          "betas", &C::betas,
          "adamw, adam, and muon for what is no hidden matrix: decay of the first and the second moment; lion: of the "
          "average that is followed, and of the one that is kept",
          from_to_below(0, 1)),
      field("eps", &C::eps, "adamw, adam, muon: added to the root of the second moment", above_up_to(0, 1),
            Aliases{"adam_eps", "epsilon"}),
      field("bias_correction", &C::bias_correction,
            "adamw, adam, muon: moments are corrected for their start at 0; BERT's optimizer does not",
            Aliases{"correct_bias"}),
      field("weight_decay", &C::weight_decay,
            "decay of parameters with two or more dimensions; norms and biases have none. Decoupled from the gradient; "
            "adam and sgd: a part of it",
            Range{0, 10}),
      field("scale_parameter", &C::scale_parameter,
            "steps are relative to what they change: a tensor's learning rate is multiplied by the root mean square of "
            "its weights; auto: with adafactor",
            Aliases{"multiply_by_parameter_scale"}),
      field("least_scale", &C::least_scale, "with scale_parameter: the least that the root mean square counts for",
            above_up_to(0, 1)),
      field("adafactor", &C::adafactor, "of name adafactor only"),
      field("sgd", &C::sgd, "of name sgd only"),
      field("muon", &C::muon, "of name muon only"),
  };
}

}  // namespace mixtape
