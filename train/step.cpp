#include "train/step.h"

#include "train/generate.h"
#include "train/objective/make.h"
#include "train/optim/lora.h"
#include "train/optim/loss_scaler.h"

namespace mixtape {

TrainingStep::TrainingStep(Engine& engine, const Config& config)
    : engine_(engine),
      seed_(uint64_t(config.seed)),
      scale_rule_(loss_scale_rule(config.precision)),
      optimizer_(config, engine.parameters(), engine.backend()) {
  start_loss_scale(engine.state(), config.precision);
}

StepResult TrainingStep::run(const GlobalBatch& batch, double learning_rate) {
  begin(batch, learning_rate);
  for (const Batch& micro_batch : batch.micro_batches) {
    engine_.load(micro_batch);
    engine_.train_micro_batch();
  }
  engine_.repeat(Engine::Work::update, [&] { update(); });
  return result();
}

void TrainingStep::begin(const GlobalBatch& batch, double learning_rate) {
  StepState& state = engine_.state();
  state.learning_rate = float(learning_rate);
  state.inverse_targets = batch.n_targets > 0 ? float(1.0 / double(batch.n_targets)) : 0.f;
  state.seed = seed_;
  state.loss = 0;
  state.micro_batch = batch.first_micro_batch;
  state.philox = philox_key(seed_, state.attempts, state.micro_batch);
  engine_.upload_state();
  engine_.begin_step();
}

void TrainingStep::update() {
  optimizer_.measure_gradients(engine_.device_state());
  optimizer_.update(engine_.device_state());
  finish_attempt(engine_.backend(), {.state = engine_.device_state(), .rule = scale_rule_});
}

StepResult TrainingStep::result() {
  const StepState& state = engine_.state();
  const double loss_scale = state.loss_scale;
  engine_.download_state();
  return {.loss = state.loss,
          .grad_norm = state.grad_norm,
          .loss_scale = loss_scale,
          .finite = state.finite != 0,
          .scale_adapts = state.scale_adapts != 0};
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
