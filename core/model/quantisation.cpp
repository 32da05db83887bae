#include "core/model/quantisation.h"

#include "core/ops/cast.h"

namespace mixtape {

Quantisation::Quantisation(const QuantisationSpec& spec, const ParameterLayout& layout, Backend& backend)
    : margin_(spec.margin), layer_of_(size_t(layout.size()), -1) {
  if (spec.kind == QuantisationSpec::int8) codes_ = {.operands = DType::i8, .gradient = DType::f32, .by_rows = true};
  for (int id = 0; id < layout.size(); ++id) {
    const ParameterEntry& entry = layout[id];
    if (!entry.is_layer_weight()) continue;
    layer_of_[size_t(id)] = int(weights_.size());
    weights_.push_back(id);
  }
  if (codes_.by_rows) return;
  const auto layers = int64_t(weights_.size());
  scale = backend.make({layers, 3}, DType::f32, Category::optimizer);
  amax = backend.make({layers, 3}, DType::f32, Category::optimizer);
  history = backend.make({layers, 3, spec.history}, DType::f32, Category::optimizer);
  for (const Tensor& t : {scale, amax, history})
    if (!backend.planning()) backend.zero(t);
}

Tensor Quantisation::linear(Tape& tape, const Tensor& x, int weight, const Tensor& bias) const {
  const auto of_layer = [&](const Tensor& t) {
    return t ? t.slice(layer_of_[size_t(weight)], 1).reshaped({3}) : Tensor();
  };
  return quantised_linear(tape, x, tape.parameter(weight), bias, codes_, of_layer(scale), of_layer(amax));
}

void Quantisation::update(Backend& backend, const StepState* state) const {
  if (!amax) return;
  const int64_t operands = amax.count();
  backend.cast().update_scales({.state = state,
                                .scale = scale.reshaped({operands}),
                                .amax = amax.reshaped({operands}),
                                .history = history.reshaped({operands, history.count() / operands}),
                                .codes = {codes_.operands, codes_.operands, codes_.gradient},
                                .margin = margin_});
}

}  // namespace mixtape
