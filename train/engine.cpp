#include "train/engine.h"

namespace mixtape {

Engine::Engine(const EngineOptions& options)
    : options_(options), backend_(make_backend(options.device)), model_(options.model, options.row_length) {
  make_buffers();
}

Engine::Engine(const EngineOptions& options, int64_t capacity)
    : options_(options),
      backend_(make_backend(options.device)),
      arena_(backend_->reserve(capacity), capacity),
      model_(options.model, options.row_length) {
  make_buffers();
}

void Engine::make_buffers() {
  backend_->bind(arena_);
  arena_.set_context("parameters");
  const bool training = options_.training;
  parameters_ = std::make_unique<Parameters>(model_.layout(),
                                             ParameterStorage{.weights = options_.types.compute,
                                                              .master = training && options_.types.master,
                                                              .gradients = training || options_.gradients,
                                                              .moments = training},
                                             *backend_);
  arena_.set_context("batch");
  state_ = backend_->make({int64_t(sizeof(StepState))}, DType::u8, Category::batch);
  upload_state();
  if (options_.rows > 0) {
    const int64_t n = options_.rows * options_.row_length;
    const auto ints = [&](Shape shape) { return backend_->make(shape, DType::i32, Category::batch); };
    inputs_ = {.tokens = ints({n}),
               .positions = ints({n}),
               .targets = ints({n}),
               .segments = ints({n, 4}),
               .n_segments = ints({1})};
  }
  model_.make_tables(*backend_, options_.row_length);
  model_.set_loss_chunk_rows(options_.loss_chunk_rows);
  tape_ = std::make_unique<Tape>(*backend_, parameters_.get(), device_state());
  tape_->set_policy(options_.recompute);
}

StepState* Engine::device_state() { return reinterpret_cast<StepState*>(state_.raw()); }
void Engine::upload_state() { backend_->copy_from_host(state_, &host_state_); }
void Engine::download_state() { backend_->copy_to_host(&host_state_, state_); }

void Engine::load(const Batch& batch) {
  const int64_t n = options_.rows * options_.row_length;
  if (int64_t(batch.tokens.size()) != n)
    throw Error("engine: a batch of {} tokens, expected {}", batch.tokens.size(), n);
  backend_->copy_from_host(inputs_.tokens, batch.tokens.data());
  backend_->copy_from_host(inputs_.positions, batch.positions.data());
  backend_->copy_from_host(inputs_.targets, batch.targets.data());
  const int32_t count = int32_t(batch.segments.size());
  backend_->copy_from_host(inputs_.segments.slice(0, count), batch.segments.data());
  backend_->copy_from_host(inputs_.n_segments, &count);
}

double Engine::run_micro_batch(bool train) {
  tape_->clear();
  tape_->set_training(train);
  float mean = 0;
  {
    const Loss loss = model_.loss(*tape_, inputs_);
    backend_->copy_to_host(&mean, loss.mean);
  }
  if (train) tape_->backward();
  tape_->clear();
  return mean;
}

}  // namespace mixtape
