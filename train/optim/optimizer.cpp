#include "train/optim/optimizer.h"

#include "train/optim/parameter_groups.h"

namespace mixtape {

Moments moments_of(const Config& config) {
  const OptimizerConfig& o = config.optimizer;
  const MomentFormat format = config.precision.moments;
  switch (o.name) {
    case OptimizerKind::adafactor:
      return {.first = o.adafactor.beta1 > 0, .second = SecondMoments::factored};
    case OptimizerKind::sgd:
      return {.first = o.sgd.momentum > 0, .format = format};
    case OptimizerKind::lion:
      return {.first = true, .format = format};
    default:
      return {.first = true, .second = SecondMoments::full, .format = format};
  }
}

Optimizer::Optimizer(const Config& config, Parameters& parameters, Backend& backend)
    : config_(config.optimizer),
      clip_(float(config.train.clip_grad)),
      seed_(uint64_t(config.seed)),
      parameters_(parameters),
      backend_(backend) {
  const std::vector<ParameterFactors> factors = parameter_factors(parameters.layout(), config.parameters);
  const auto decay = float(config_.weight_decay);
  tensors_ = parameters.update_tensors(decay, factors);
  // Ranges of tensors that are stored as one are apart only where their scales are.
  const bool scaled = config_.scales_parameters();
  ranges_ = scaled ? Parameters::ranges_of(tensors_) : parameters.update_ranges(decay, factors);
  const Shard shard = parameters.shard();
  for (UpdateRange range : ranges_) {
    if (range.offset < shard.begin || range.offset >= shard.end()) continue;
    range.offset -= shard.begin;
    own_ranges_.push_back(range);
  }
  if (scaled) scales_ = backend.make({int64_t(tensors_.size())}, DType::f32, Category::optimizer);
}

void Optimizer::measure_gradients(StepState* state) const {
  gradient_norm(backend_, {.state = state,
                           .gradients = parameters_.gradients,
                           .ranges = ranges_.data(),
                           .n_ranges = int64_t(ranges_.size()),
                           .clip = clip_});
}

void Optimizer::update(StepState* state) const {
  if (scales_)
    parameter_scales(backend_, {.scales = scales_,
                                .weights = parameters_.master ? parameters_.master : parameters_.learning_weights(),
                                .tensors = tensors_.data(),
                                .n_tensors = int64_t(tensors_.size()),
                                .least = float(config_.least_scale)});
  switch (config_.name) {
    case OptimizerKind::adafactor:
      return adafactor_update(state);
    case OptimizerKind::sgd:
      return sgd_update(state);
    case OptimizerKind::lion:
      return lion_update(state);
    default:
      return adamw_update(state);
  }
}

void Optimizer::adamw_update(StepState* state) const {
  adamw(backend_, {.state = state,
                   .weights = parameters_.own(parameters_.weights),
                   .master = parameters_.master,
                   .gradients = parameters_.own(parameters_.gradients),
                   .m = parameters_.m,
                   .v = parameters_.v,
                   .ranges = own_ranges_.data(),
                   .n_ranges = int64_t(own_ranges_.size()),
                   .beta1 = float(config_.betas[0]),
                   .beta2 = float(config_.betas[1]),
                   .eps = float(config_.eps),
                   .bias_correction = config_.bias_correction,
                   .scales = scales_,
                   .seed = seed_,
                   .decoupled_decay = config_.name != OptimizerKind::adam});
}

void Optimizer::sgd_update(StepState* state) const {
  sgd(backend_, {.state = state,
                 .weights = parameters_.own(parameters_.weights),
                 .master = parameters_.master,
                 .gradients = parameters_.own(parameters_.gradients),
                 .m = parameters_.m,
                 .ranges = own_ranges_.data(),
                 .n_ranges = int64_t(own_ranges_.size()),
                 .momentum = float(config_.sgd.momentum),
                 .nesterov = config_.sgd.nesterov,
                 .seed = seed_});
}

void Optimizer::lion_update(StepState* state) const {
  lion(backend_, {.state = state,
                  .weights = parameters_.own(parameters_.weights),
                  .master = parameters_.master,
                  .gradients = parameters_.own(parameters_.gradients),
                  .m = parameters_.m,
                  .ranges = own_ranges_.data(),
                  .n_ranges = int64_t(own_ranges_.size()),
                  .beta1 = float(config_.betas[0]),
                  .beta2 = float(config_.betas[1]),
                  .seed = seed_});
}

void Optimizer::adafactor_update(StepState* state) const {
  adafactor(backend_, {.state = state,
                       .weights = parameters_.learning_weights(),
                       .master = parameters_.master,
                       .gradients = parameters_.gradients,
                       .m = parameters_.m.values,
                       .v = parameters_.v.values,
                       .tensors = tensors_.data(),
                       .n_tensors = int64_t(tensors_.size()),
                       .beta1 = float(config_.adafactor.beta1),
                       .decay_rate = float(config_.adafactor.decay_rate),
                       .eps = float(config_.adafactor.eps),
                       .clip_threshold = float(config_.adafactor.clip_threshold),
                       .scales = scales_});
}

}  // namespace mixtape
