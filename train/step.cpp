#include "train/step.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "train/generate.h"
#include "train/objective/make.h"
#include "train/optim/lora.h"
#include "train/optim/loss_scaler.h"
#include "train/parallel/watchdog.h"

namespace mixtape {

namespace {

uint64_t exact_updates(const TrainConfig& train, const ScheduleConfig& schedule) {
  if (train.clip_grad == 0 || train.clip_pass == ClipPass::never) return 0;
  return train.clip_pass == ClipPass::always ? std::numeric_limits<uint64_t>::max() : uint64_t(schedule.warmup_steps);
}

// What GPUs exchange gradients and weights with.
std::unique_ptr<Exchange> exchange_of(Backend& backend, const RankGrid& ranks) {
  return ranks.data().size() > 1 && !backend.planning() ? make_exchange(backend, ranks.data()) : nullptr;
}

}  // namespace

TrainingStep::TrainingStep(Engine& engine, const Config& config, const RankGrid& ranks)
    : engine_(engine),
      grid_(ranks),
      seed_(uint64_t(config.seed)),
      scale_rule_(loss_scale_rule(config.precision)),
      fused_(config.precision.gradients == GradientStorage::fused),
      exact_updates_(fused_ ? exact_updates(config.train, config.schedule) : 0),
      optimizer_(config, engine.parameters(), engine.backend(), engine.layer_exchange()),
      device_(exchange_of(engine.backend(), ranks)),
      reducer_(config, engine.parameters(), engine.backend(), ranks.data(), device_.get()) {
  watch_exchanges();
  start_loss_scale(engine.state(), config.precision);
  if (fused_) engine.parameters().buckets().set_listener(this);
  if (engine.options().shards_weights)
    gatherer_.emplace(engine.parameters(), engine.backend(), ranks.data(), device_.get());
  if (sums_each_micro_batch(config, ranks.data())) nothing_ = batch_without_targets(engine.options());
}

TrainingStep::~TrainingStep() {
  if (fused_) engine_.parameters().buckets().set_listener(nullptr);
  if (device_ || engine_.layer_exchange()) Watchdog::ask(nullptr);
}

void TrainingStep::watch_exchanges() {
  std::vector<Exchange*> exchanges;
  for (Exchange* e : {device_.get(), engine_.layer_exchange()})
    if (e) exchanges.push_back(e);
  if (exchanges.empty()) return;
  Watchdog::ask([exchanges] {
    std::string fault;
    for (Exchange* e : exchanges)
      if (fault.empty()) fault = e->fault();
    return fault;
  });
}

StepResult TrainingStep::run(const GlobalBatch& batch, double learning_rate) {
  StepCounts counts = begin(batch, learning_rate);
  if (measures_first()) {
    if (!measure(batch)) return end(counts);
    counts = begin(batch, learning_rate);
  }
  for (int64_t i = 0; i < reducer_.micro_batches(); ++i) run_micro_batch(batch, i);
  reducer_.finish_sums();
  return end(counts);
}

// In a plan it is left out: the pass that updates takes more memory.
bool TrainingStep::measures_first() const {
  return engine_.state().updates < exact_updates_ && !engine_.arena().planning();
}

// The norm comes to the host, and from there, as that of the step before, to what clips.
bool TrainingStep::measure(const GlobalBatch& batch) {
  const Phase phase("measuring gradients");
  measuring_ = true;
  engine_.begin_sum();
  engine_.load(batch.micro_batches.at(0));
  engine_.measure_micro_batch();
  measuring_ = false;
  engine_.download_state();
  return engine_.state().finite != 0;
}

void TrainingStep::run_micro_batch(const GlobalBatch& batch, int64_t i) {
  const Phase phase("forward and backward");
  const bool any = size_t(i) < batch.micro_batches.size();
  if (reducer_.starts_sum(i)) engine_.begin_sum();
  engine_.load(any ? batch.micro_batches[size_t(i)] : nothing_);
  reducer_.begin_micro_batch(i);
  if (gatherer_) gatherer_->begin_micro_batch();
  engine_.train_micro_batch();
  if (gatherer_) gatherer_->end_micro_batch();
  reducer_.end_micro_batch(i);
  if (ranks().size() == 1) return;
  const double loss = take_loss(i);
  if (any) losses_.push_back(loss);
}

StepCounts TrainingStep::begin(const GlobalBatch& batch, double learning_rate) {
  const StepCounts counts = reducer_.begin(batch);
  StepState& state = engine_.state();
  state.learning_rate = float(learning_rate);
  state.inverse_targets = counts.targets > 0 ? float(1.0 / double(counts.targets)) : 0.f;
  state.seed = seed_;
  state.loss = 0;
  state.grad_squares = 0;
  state.last_norm = state.grad_norm;
  state.micro_batch = batch.first_micro_batch;
  state.philox = philox_key(seed_, state.attempts, state.micro_batch);
  engine_.upload_state();
  losses_.clear();
  return counts;
}

// Of the i-th micro-batch alone: ranks add losses in the order of micro-batches, whoever had them. And the next one's
// random numbers, which is not the next of the global step where ranks take turns.
double TrainingStep::take_loss(int64_t i) {
  engine_.download_state();
  StepState& state = engine_.state();
  const double loss = std::exchange(state.loss, 0.0);
  state.micro_batch = reducer_.number_of(i + 1);
  state.philox = philox_key(seed_, state.attempts, state.micro_batch);
  engine_.upload_state();
  return loss;
}

void TrainingStep::bucket_complete(int bucket) {
  TapeObserver* const observer = engine_.tape().observer();
  if (observer) observer->begin("update", true);
  if (measuring_) {
    optimizer_.measure_bucket(bucket, engine_.device_state());
  } else {
    optimizer_.apply_bucket(bucket, engine_.device_state());
  }
  if (observer) observer->end("update", true);
}

void TrainingStep::update() {
  if (!fused_) {
    optimizer_.measure_gradients(engine_.device_state(),
                                 [&](const Tensor& squares) { reducer_.share_squares(squares); });
    optimizer_.update(engine_.device_state());
  }
  if (const Quantisation* const q = engine_.quantisation(); q && q->amax) {
    reducer_.share_largest(q->amax);
    q->update(engine_.backend(), engine_.device_state());
  }
  finish_attempt(engine_.backend(), {.state = engine_.device_state(), .rule = scale_rule_});
}

StepResult TrainingStep::end(const StepCounts& counts) {
  engine_.repeat(Engine::Work::update, [&] { update(); });
  reducer_.share_weights();
  const StepState& state = engine_.state();
  const double loss_scale = state.loss_scale;
  const Phase phase("end of the step", Phase::waits);
  engine_.download_state();
  engine_.check_offload();
  return {.loss = ranks().size() > 1 ? reducer_.total(losses_) : state.loss,
          .n_tokens = counts.tokens,
          .grad_norm = state.grad_norm,
          .loss_scale = loss_scale,
          .finite = state.finite != 0,
          .scale_adapts = state.scale_adapts != 0};
}

namespace {

// Fused gradients have the type of the weights: never more than a few buckets are there, and none is added to. Of those
// that ranks exchange in each micro-batch several are there at once, and so are weights: half as large as usual they
// stay below two blocks of a model.
GradientMemory gradient_memory(const Config& config, const ParameterLayout& layout, const Communicator& ranks) {
  if (sums_each_micro_batch(config, ranks))
    return {.transient = true, .bucket_elements = std::max<int64_t>(usual_bucket_elements(layout) / 2, 1)};
  switch (config.precision.gradients) {
    case GradientStorage::fp32:
      return {};
    case GradientStorage::bf16:
      return {.dtype = DType::bf16};
    case GradientStorage::fused:
      return {.dtype = compute_types(config.precision).compute, .transient = true};
  }
  return {};
}

}  // namespace

EngineOptions training_options(const Config& config, const RankGrid& grid) {
  const Communicator& ranks = grid.data();
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
  Communicator& layers = grid.tensor();
  Transformer model(config.model, row.length, row.decoder_length, lora, TensorParallel({layers.rank(), layers.size()}));
  const std::vector<std::string> frozen = frozen_parameters(model.layout(), config);
  if (!frozen.empty()) model.freeze(frozen);
  const bool sums = sums_each_micro_batch(config, ranks);
  return {.model = config.model,
          .device = device_options(config, grid.all()),
          .types = compute_types(config.precision),
          .training = true,
          .moments = moments_of(config),
          .sharding = sharding_of(config, ranks),
          .sums = sums,
          .shards_weights = sums && config.parallel.zero_stage == 3,
          .layers = &layers,
          .offload_state = config.memory.offloads_state(),
          .offload_activations = config.memory.offloads_activations(),
          .offload_place = {.directory = config.memory.offload_directory.value_or(config.run_directory().string()),
                            .on_disk = config.memory.offload_directory.has_value()},
          .gradient_memory = gradient_memory(config, model.layout(), ranks),
          .rows = config.train.micro_batch_size,
          .row_length = row.length,
          .decoder_length = row.decoder_length,
          .most_targets = row.most_targets,
          .label_smoothing = config.objective.label_smoothing,
          .lora = lora,
          .quantisation = quantisation_of(config.precision),
          .frozen = frozen,
          .recompute = policy,
          .loss_chunk_rows = config.memory.loss_chunk_tokens.value_or(0)};
}

MemoryPlan plan_training(const EngineOptions& options, const Config& config, const RankGrid& grid) {
  const Communicator& ranks = grid.data();
  Engine dry(options);
  MemoryPlan plan;
  GlobalBatch batch;
  Batch micro;
  pad_batch(micro, options);
  // A second micro-batch adds gradients to what is there, which may take other scratch than storing them.
  batch.of_micro_batches = config.train.global_batch_size / config.train.micro_batch_size;
  const bool in_turns = sums_each_micro_batch(config, ranks);
  batch.stride = in_turns ? ranks.size() : 1;
  batch.first_micro_batch = uint64_t(in_turns ? ranks.rank() : batch.of_micro_batches * ranks.rank() / ranks.size());
  batch.micro_batches.assign(size_t(std::min<int64_t>(2, batch.of_micro_batches / ranks.size())), micro);
  batch.n_targets = 1;
  TrainingStep step(dry, config, grid);  // what it holds is there during validations and samples too
  step.run(batch, 0);
  if (options.shards_weights) step.run(batch, 0);  // now that it is known in which order weights are read
  dry.run_micro_batch(false);
  if (config.logging.sample_interval > 0 && can_generate(options.model)) plan_generation(dry, config.logging);
  plan.peak = dry.arena().peak();
  plan.at_peak = dry.arena().at_peak();
  plan.offloaded_activations = dry.tape().saved().most_outside();
  plan.offloaded = dry.parameters().offloaded_bytes() + plan.offloaded_activations;
  return plan;
}

}  // namespace mixtape
