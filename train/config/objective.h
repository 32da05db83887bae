// objective: what the model is trained to predict.
#pragma once

#include <array>
#include <tuple>

#include "core/base/fields.h"

namespace mixtape {

enum class ObjectiveKind { causal_lm, masked_lm, span_corruption, denoising, classify, tag, seq2seq };

constexpr auto names(std::type_identity<ObjectiveKind>) {
  using E = ObjectiveKind;
  return std::array{Named<E>{E::causal_lm, "causal_lm"},
                    Named<E>{E::masked_lm, "masked_lm"},
                    Named<E>{E::span_corruption, "span_corruption"},
                    Named<E>{E::denoising, "denoising"},
                    Named<E>{E::classify, "classify"},
                    Named<E>{E::tag, "tag"},
                    Named<E>{E::seq2seq, "seq2seq"}};
}

struct ObjectiveConfig {
  ObjectiveKind name = ObjectiveKind::causal_lm;
};

constexpr auto fields(std::type_identity<ObjectiveConfig>) {
  using C = ObjectiveConfig;
  return std::tuple{
      field("name", &C::name, "the training objective",
            refused_on_resume("the loss would mean something else; start a new run with run.init_from")),
  };
}

}  // namespace mixtape
