// schedule: the learning rate as a function of the update.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <tuple>

#include "core/base/fields.h"

namespace mixtape {

enum class ScheduleKind { constant, linear, cosine, inverse_sqrt, wsd };

constexpr auto names(std::type_identity<ScheduleKind>) {
  using E = ScheduleKind;
  return std::array{Named<E>{E::constant, "constant"}, Named<E>{E::linear, "linear"}, Named<E>{E::cosine, "cosine"},
                    Named<E>{E::inverse_sqrt, "inverse_sqrt"}, Named<E>{E::wsd, "wsd"}};
}

enum class DecayShape { linear, cosine, sqrt };

constexpr auto names(std::type_identity<DecayShape>) {
  using E = DecayShape;
  return std::array{Named<E>{E::linear, "linear"}, Named<E>{E::cosine, "cosine"}, Named<E>{E::sqrt, "sqrt"}};
}

enum class WarmupShape { linear, constant };

constexpr auto names(std::type_identity<WarmupShape>) {
  using E = WarmupShape;
  return std::array{Named<E>{E::linear, "linear"}, Named<E>{E::constant, "constant"}};
}

struct ScheduleConfig {
  ScheduleKind name = ScheduleKind::cosine;
  int64_t warmup_steps = 100;
  WarmupShape warmup_shape = WarmupShape::linear;
  double min_lr = 0;
  Auto<int64_t> decay_steps;
  DecayShape decay_shape = DecayShape::linear;
};

constexpr auto fields(std::type_identity<ScheduleConfig>) {
  using C = ScheduleConfig;
  return std::tuple{
      field(
          "name", &C::name,
          "after the warm-up: constant; linear or cosine down to min_lr; inverse_sqrt, lr * sqrt(warmup_steps / step); "
          "wsd, constant and then a decay to min_lr over the last decay_steps"),
      field("warmup_steps", &C::warmup_steps,
            "updates of linear warm-up: update i (from 0) has lr * (i + 1) / (warmup_steps + 1)", Range{0, 1e12},
            Aliases{"lr_warmup_steps", "warmup_iters", "lr_warmup_iters", "warmup"}),
      field("warmup_shape", &C::warmup_shape,
            "linear; or constant, all of lr from the first update, as in T5: inverse_sqrt then is min(lr, lr * "
            "sqrt(warmup_steps / step))"),
      field("min_lr", &C::min_lr, "the least learning rate of a decay", Range{0, 10}),
      field(
          "decay_steps", &C::decay_steps,
          "linear, cosine: the update at which min_lr is reached, auto: the last one. wsd: length of the decay, auto: "
          "a tenth of the run",
          Range{1, 1e12}, Aliases{"lr_decay_iters", "lr_wsd_decay_iters"}),
      field("decay_shape", &C::decay_shape,
            "wsd only: with p from 0 to 1 over the decay, linear 1 - p, cosine (1 + cos(pi p)) / 2, sqrt 1 - sqrt(p)"),
  };
}

}  // namespace mixtape
