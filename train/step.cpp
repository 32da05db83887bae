#include "train/step.h"

#include <cmath>

#include "train/generate.h"
#include "train/objective/make.h"
#include "train/optim/lora.h"

namespace mixtape {

TrainingStep::TrainingStep(Engine& engine, const Config& config)
    : engine_(engine),
      seed_(uint64_t(config.seed)),
      scales_loss_(config.precision.mode == PrecisionMode::fp16),
      scaler_(config.precision.loss_scale),
      optimizer_(config, engine.parameters(), engine.backend()) {}

StepResult TrainingStep::run(const GlobalBatch& batch, double learning_rate) {
  StepState& state = engine_.state();
  state.learning_rate = float(learning_rate);
  state.loss_scale = scales_loss_ ? scaler_.scale() : 1.f;
  state.inverse_targets = batch.n_targets > 0 ? float(1.0 / double(batch.n_targets)) : 0.f;

  StepResult result;
  Parameters& parameters = engine_.parameters();
  parameters.new_step();
  for (size_t i = 0; i < batch.micro_batches.size(); ++i) {
    state.philox = philox_key(seed_, state.attempts, batch.first_micro_batch + i);
    engine_.upload_state();
    engine_.load(batch.micro_batches[i]);
    result.loss += engine_.run_micro_batch(true);
  }

  optimizer_.measure_gradients(engine_.device_state());
  optimizer_.update(engine_.device_state());
  engine_.download_state();
  result.grad_norm = state.grad_norm;
  result.finite = state.finite != 0;
  ++state.attempts;
  if (result.finite) ++state.updates;
  if (scales_loss_) result.scale_adapts = scaler_.update(result.finite) && !result.finite;
  return result;
}

EngineOptions training_options(const Config& config) {
  const auto policy = [&] {
    switch (config.memory.recompute) {
      case RecomputeMode::selective:
        return RecomputePolicy::selective;
      case RecomputeMode::full:
        return RecomputePolicy::full;
      default:
        return RecomputePolicy::none;
    }
  }();
  const RowShape row = row_shape(config);
  const LoraSpec lora = lora_of(config);
  const Transformer model(config.model, row.length, row.decoder_length, lora);
  return {.model = config.model,
          .device = device_options(config),
          .types = compute_types(config.precision),
          .training = true,
          .moments = moments_of(config.optimizer),
          .rows = config.train.micro_batch_size,
          .row_length = row.length,
          .decoder_length = row.decoder_length,
          .most_targets = row.most_targets,
          .label_smoothing = config.objective.label_smoothing,
          .lora = lora,
          .frozen = frozen_parameters(model.layout(), config),
          .recompute = policy,
          .loss_chunk_rows = config.memory.loss_chunk_tokens.value_or(0)};
}

MemoryPlan plan_training(const EngineOptions& options, const Config& config) {
  Engine dry(options);
  MemoryPlan plan;
  GlobalBatch batch;
  Batch micro;
  pad_batch(micro, options);
  // A second micro-batch adds gradients to what is there, which may take other scratch than storing them.
  batch.micro_batches.assign(config.train.global_batch_size > config.train.micro_batch_size ? 2 : 1, micro);
  batch.n_targets = 1;
  TrainingStep step(dry, config);  // what it holds is there during validations and samples too
  step.run(batch, 0);
  dry.run_micro_batch(false);
  if (config.logging.sample_interval > 0 && can_generate(options.model)) plan_generation(dry, config.logging);
  plan.peak = dry.arena().peak();
  plan.at_peak = dry.arena().at_peak();
  return plan;
}

}  // namespace mixtape
