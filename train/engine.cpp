#include "train/engine.h"

namespace mixtape {

Engine::Engine(const EngineOptions& options)
    : options_(options),
      backend_(make_backend(options.device)),
      model_(options.model, options.row_length, options.decoder_length, options.lora) {
  make_buffers();
}

Engine::Engine(const EngineOptions& options, int64_t capacity)
    : options_(options),
      backend_(make_backend(options.device)),
      arena_(backend_->reserve(capacity), capacity),
      model_(options.model, options.row_length, options.decoder_length, options.lora) {
  make_buffers();
}

void Engine::make_buffers() {
  backend_->bind(arena_);
  arena_.set_context("parameters");
  if (!options_.frozen.empty()) model_.freeze(options_.frozen);
  const bool training = options_.training;
  parameters_ = std::make_unique<Parameters>(model_.layout(),
                                             ParameterStorage{.weights = options_.types.compute,
                                                              .master = training && options_.types.master,
                                                              .gradients = training || options_.gradients,
                                                              .moments = training ? options_.moments : Moments{}},
                                             *backend_);
  arena_.set_context("batch");
  state_ = backend_->make({int64_t(sizeof(StepState))}, DType::u8, Category::batch);
  upload_state();
  if (options_.rows > 0) make_inputs();
  model_.make_tables(*backend_);
  model_.set_loss_chunk_rows(options_.loss_chunk_rows);
  tape_ = std::make_unique<Tape>(*backend_, parameters_.get(), device_state());
  tape_->set_policy(options_.recompute);
}

void Engine::make_inputs() {
  const ModelSpec& spec = model_.spec();
  const auto ints = [&](Shape shape) { return backend_->make(shape, DType::i32, Category::batch); };
  const auto stack = [&](int64_t n) {
    return StackInputs{.tokens = ints({n}), .positions = ints({n}), .segments = ints({n, 4}), .n_segments = ints({1})};
  };
  inputs_.main = stack(options_.rows * options_.row_length);
  if (spec.token_types) inputs_.main.types = ints({options_.rows * options_.row_length});
  if (options_.decoder_length) {
    inputs_.decoder = stack(options_.rows * options_.decoder_length);
    inputs_.cross_segments = ints({options_.rows * options_.decoder_length, 4});
    inputs_.n_cross_segments = ints({1});
  }
  const int64_t most = options_.rows * options_.most_targets;
  const bool few = most > 0 && most < predicting_rows();
  inputs_.targets = ints({few ? most : predicting_rows()});
  if (few) inputs_.target_rows = ints({most});
}

StepState* Engine::device_state() { return reinterpret_cast<StepState*>(state_.raw()); }
void Engine::upload_state() { backend_->copy_from_host(state_, &host_state_); }
void Engine::download_state() { backend_->copy_to_host(&host_state_, state_); }

// Copies to a capacity; the rest of it keeps what was there and is never read.
void Engine::load_segments(std::span<const Segment> segments, const Tensor& to, const Tensor& count) {
  if (int64_t(segments.size()) > to.rows())
    throw Error("engine: a batch of {} segments, at most {}", segments.size(), to.rows());
  const auto n = int32_t(segments.size());
  if (n > 0) backend_->copy_from_host(to.slice(0, n), segments.data());
  backend_->copy_from_host(count, &n);
}

void Engine::load_stack(const StackInputs& to, const StackRows& rows) {
  const auto n = size_t(to.tokens.count());
  if (rows.tokens.size() != n || rows.positions.size() != n)
    throw Error("engine: a batch of {} tokens and {} positions, expected {}", rows.tokens.size(), rows.positions.size(),
                n);
  backend_->copy_from_host(to.tokens, rows.tokens.data());
  backend_->copy_from_host(to.positions, rows.positions.data());
  load_segments(rows.segments, to.segments, to.n_segments);
}

void Engine::load_targets(const std::vector<int32_t>& targets) {
  if (int64_t(targets.size()) != predicting_rows())
    throw Error("engine: a batch of {} targets, expected {}", targets.size(), predicting_rows());
  if (!inputs_.target_rows) return backend_->copy_from_host(inputs_.targets, targets.data());
  std::vector<int32_t> rows, of_rows;
  for (size_t i = 0; i < targets.size(); ++i)
    if (targets[i] >= 0) rows.push_back(int32_t(i)), of_rows.push_back(targets[i]);
  const auto capacity = size_t(inputs_.target_rows.count());
  if (rows.size() > capacity) throw Error("engine: a batch of {} targets, at most {}", rows.size(), capacity);
  rows.resize(capacity, -1);
  of_rows.resize(capacity, -1);
  backend_->copy_from_host(inputs_.target_rows, rows.data());
  backend_->copy_from_host(inputs_.targets, of_rows.data());
}

void Engine::load(const Batch& batch) {
  load_stack(inputs_.main, {batch.tokens, batch.positions, batch.segments});
  if (inputs_.main.types) {
    const auto n = size_t(inputs_.main.types.count());
    if (!batch.token_types.empty() && batch.token_types.size() != n)
      throw Error("engine: a batch of {} token types, expected {}", batch.token_types.size(), n);
    const std::vector<int32_t> zeros(batch.token_types.empty() ? n : 0);
    backend_->copy_from_host(inputs_.main.types, (batch.token_types.empty() ? zeros : batch.token_types).data());
  }
  if (options_.decoder_length) {
    load_stack(inputs_.decoder, {batch.decoder.tokens, batch.decoder.positions, batch.decoder.segments});
    load_segments(batch.decoder.cross_segments, inputs_.cross_segments, inputs_.n_cross_segments);
  }
  load_targets(batch.targets);
}

void pad_batch(Batch& batch, const EngineOptions& options) {
  const auto n = size_t(options.rows * options.row_length), of_decoder = size_t(options.rows * options.decoder_length);
  batch.rows = int32_t(options.rows);
  batch.tokens.resize(n, -1);
  batch.positions.resize(n, 0);
  if (!batch.token_types.empty()) batch.token_types.resize(n, 0);
  batch.decoder.tokens.resize(of_decoder, -1);
  batch.decoder.positions.resize(of_decoder, 0);
  batch.targets.resize(of_decoder ? of_decoder : n, -1);
}

double Engine::run_micro_batch(bool train) {
  tape_->clear();
  tape_->set_training(train);
  float mean = 0;
  {
    const Loss loss = model_.loss(*tape_, inputs_, train ? options_.label_smoothing : 0, !train);
    backend_->copy_to_host(&mean, loss.mean);
    if (!train && !arena_.planning()) {
      predictions_.resize(size_t(loss.predictions.count()));
      backend_->copy_to_host(predictions_.data(), loss.predictions);
      std::erase(predictions_, -1);  // rows without a target
    }
  }
  if (train) tape_->backward();
  tape_->clear();
  return mean;
}

}  // namespace mixtape
