// Linear layers whose operands are rounded through 8-bit codes: which, how, and the scales that follow from step to
// step.
//
// The layers are those inside of blocks. Embeddings, norms, attention's own products and the head keep the compute
// type, and so does generation, whose rows must not depend on each other.
#pragma once

#include <vector>

#include "core/ops/matmul.h"

namespace mixtape {

struct QuantisationSpec {
  // fp8: e4m3 forward and e5m2 for gradients, a scale for each tensor that follows its largest magnitudes of the last
  // `history` steps. int8: quantisation-aware training; inputs by token and weights by output channel, each by its
  // largest of now, and gradients as they are.
  enum Kind { none, fp8, int8 } kind = none;
  int64_t history = 0;
  int margin = 0;  // fp8: of the codes' range the factor 2^-margin is used
};

class Quantisation {
 public:
  Quantisation(const QuantisationSpec& spec, const ParameterLayout& layout, Backend& backend);

  // Whether the layer with this weight is one of them.
  bool has(int weight) const { return weight >= 0 && layer_of_[size_t(weight)] >= 0; }
  // x W^T + b of the layer, where W is that weight.
  Tensor linear(Tape& tape, const Tensor& x, int weight, const Tensor& bias) const;

  // The end of a step, after the update and before finish_attempt (UpdateScales, core/ops/cast.h).
  void update(Backend& backend, const StepState* state) const;

  // Of layers' inputs, weights and output gradients, absent where scales do not follow steps: [layers, 3], and history
  // [layers, 3, history]. amax: of the step so far.
  Tensor scale, amax, history;
  // The layers' weights, by id, in the order of rows.
  const std::vector<int>& weights() const { return weights_; }

 private:
  OperandCodes codes_;
  int margin_;
  std::vector<int> weights_, layer_of_;
};

}  // namespace mixtape
