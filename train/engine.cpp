#include "train/engine.h"

#include <cstring>

#include "core/ops/optimizer.h"

namespace mixtape {

namespace {

std::unique_ptr<Exchange> exchange_of(Backend& backend, const EngineOptions& options, bool planning) {
  if (options.layers->size() == 1) return nullptr;
  std::unique_ptr<Exchange> of_gpus = planning ? nullptr : make_exchange(backend, *options.layers);
  return of_gpus ? std::move(of_gpus) : host_exchange(*options.layers);
}

Transformer model_of(const EngineOptions& options, Exchange* exchange) {
  const TensorParallel parallel(options.layer_slice());
  return Transformer(options.model, options.row_length, options.decoder_length, options.lora,
                     exchange ? parallel.through(*exchange) : parallel);
}

}  // namespace

Engine::Engine(const EngineOptions& options)
    : options_(options),
      backend_(make_backend(options.device)),
      exchange_(exchange_of(*backend_, options, true)),
      model_(model_of(options, exchange_.get())) {
  make_buffers(0);
}

Engine::Engine(const EngineOptions& options, const EngineMemory& memory)
    : options_(options),
      backend_(make_backend(options.device)),
      exchange_(exchange_of(*backend_, options, false)),
      arena_(backend_->reserve(memory.arena), memory.arena),
      model_(model_of(options, exchange_.get())) {
  make_buffers(memory.activations_outside);
}

void Engine::make_buffers(int64_t activations_outside) {
  backend_->bind(arena_);
  arena_.set_context("parameters");
  if (!options_.frozen.empty()) model_.freeze(options_.frozen);
  if (options_.int8_weights) model_.code_layer_weights();
  const bool training = options_.training;
  parameters_ =
      std::make_unique<Parameters>(model_.layout(),
                                   ParameterStorage{.weights = options_.types.compute,
                                                    .master = training ? options_.types.master : MasterWeights::none,
                                                    .gradients = training || options_.gradients,
                                                    .gradient_memory = options_.gradient_memory,
                                                    .moments = training ? options_.moments : Moments{},
                                                    .sharding = options_.sharding,
                                                    .sums = options_.sums,
                                                    .shards_weights = options_.shards_weights,
                                                    .offload = training && options_.offload_state,
                                                    .offload_place = options_.offload_place},
                                   *backend_);
  if (options_.quantisation.kind != QuantisationSpec::none)
    quantisation_ = std::make_unique<Quantisation>(options_.quantisation, model_.layout(), *backend_);
  arena_.set_context("batch");
  state_ = backend_->make({int64_t(sizeof(StepState))}, DType::u8, Category::batch);
  upload_state();
  if (options_.rows > 0) make_inputs();
  model_.make_tables(*backend_);
  model_.set_loss_chunk_rows(options_.loss_chunk_rows);
  tape_ = std::make_unique<Tape>(*backend_, parameters_.get(), device_state());
  tape_->set_policy(options_.recompute);
  tape_->set_quantisation(quantisation_.get());
  if (training && options_.offload_activations)
    tape_->saved().offload({"activations", activations_outside, options_.offload_place});
}

void Engine::check_offload() const {
  for (Offload* outside : {parameters_->outside(), tape_->saved().outside()})
    if (outside) outside->check();
}

// All inputs are one block, which one copy fills: each gets its place in it, as large as it can be.
void Engine::make_inputs() {
  const ModelSpec& spec = model_.spec();
  std::vector<std::pair<Tensor*, Shape>> places;
  const auto stack = [&](StackInputs& to, int64_t n) {
    places.insert(places.end(),
                  {{&to.tokens, {n}}, {&to.positions, {n}}, {&to.segments, {n, 4}}, {&to.n_segments, {1}}});
  };
  const int64_t rows = options_.rows * options_.row_length, of_decoder = options_.rows * options_.decoder_length;
  stack(inputs_.main, rows);
  if (spec.token_types) places.push_back({&inputs_.main.types, {rows}});
  if (of_decoder) {
    stack(inputs_.decoder, of_decoder);
    places.push_back({&inputs_.cross_segments, {of_decoder, 4}});
    places.push_back({&inputs_.n_cross_segments, {1}});
  }
  const int64_t most = options_.rows * options_.most_targets;
  const bool few = most > 0 && most < predicting_rows();
  places.push_back({&inputs_.targets, {few ? most : predicting_rows()}});
  if (few) places.push_back({&inputs_.target_rows, {most}});

  constexpr int64_t alignment = Arena::alignment / int64_t(sizeof(int32_t));
  const auto room = [](const Shape& shape) { return (shape.count() + alignment - 1) / alignment * alignment; };
  int64_t ints = 0;
  for (const auto& [to, shape] : places) ints += room(shape);
  block_ = backend_->make({ints, 1}, DType::i32, Category::batch);
  feed_ = backend_->feed(block_);
  int64_t at = 0;
  for (const auto& [to, shape] : places) {
    *to = block_.slice(at, shape.count()).reshaped(shape);
    at += room(shape);
  }
}

StepState* Engine::device_state() { return reinterpret_cast<StepState*>(state_.raw()); }
void Engine::upload_state() { backend_->copy_from_host(state_, &host_state_); }
void Engine::download_state() { backend_->copy_to_host(&host_state_, state_); }

int32_t* Engine::place_of(const Tensor& input, std::byte* block) const {
  return block ? reinterpret_cast<int32_t*>(block + (input.raw() - block_.raw())) : nullptr;
}

namespace {

void put(int32_t* to, const void* from, size_t ints) {
  if (to && ints > 0) std::memcpy(to, from, ints * sizeof(int32_t));
}

}  // namespace

// To a capacity; the rest of it keeps what was there and is never read.
void Engine::load_segments(std::byte* block, std::span<const Segment> segments, const Tensor& to,
                           const Tensor& count) const {
  if (int64_t(segments.size()) > to.rows())
    throw Error("engine: a batch of {} segments, at most {}", segments.size(), to.rows());
  const auto n = int32_t(segments.size());
  put(place_of(to, block), segments.data(), 4 * segments.size());
  put(place_of(count, block), &n, 1);
}

void Engine::load_stack(std::byte* block, const StackInputs& to, const StackRows& rows) const {
  const auto n = size_t(to.tokens.count());
  if (rows.tokens.size() != n || rows.positions.size() != n)
    throw Error("engine: a batch of {} tokens and {} positions, expected {}", rows.tokens.size(), rows.positions.size(),
                n);
  put(place_of(to.tokens, block), rows.tokens.data(), n);
  put(place_of(to.positions, block), rows.positions.data(), n);
  load_segments(block, rows.segments, to.segments, to.n_segments);
}

void Engine::load_targets(std::byte* block, const std::vector<int32_t>& targets) const {
  if (int64_t(targets.size()) != predicting_rows())
    throw Error("engine: a batch of {} targets, expected {}", targets.size(), predicting_rows());
  if (!inputs_.target_rows) return put(place_of(inputs_.targets, block), targets.data(), targets.size());
  std::vector<int32_t> rows, of_rows;
  for (size_t i = 0; i < targets.size(); ++i)
    if (targets[i] >= 0) rows.push_back(int32_t(i)), of_rows.push_back(targets[i]);
  const auto capacity = size_t(inputs_.target_rows.count());
  if (rows.size() > capacity) throw Error("engine: a batch of {} targets, at most {}", rows.size(), capacity);
  rows.resize(capacity, -1);
  of_rows.resize(capacity, -1);
  put(place_of(inputs_.target_rows, block), rows.data(), capacity);
  put(place_of(inputs_.targets, block), of_rows.data(), capacity);
}

void Engine::load(const Batch& batch) {
  std::byte* const block = feed_->fill();
  load_stack(block, inputs_.main, {batch.tokens, batch.positions, batch.segments});
  if (inputs_.main.types) {
    const auto n = size_t(inputs_.main.types.count());
    if (!batch.token_types.empty() && batch.token_types.size() != n)
      throw Error("engine: a batch of {} token types, expected {}", batch.token_types.size(), n);
    const std::vector<int32_t> zeros(batch.token_types.empty() ? n : 0);
    put(place_of(inputs_.main.types, block), (batch.token_types.empty() ? zeros : batch.token_types).data(), n);
  }
  if (options_.decoder_length) {
    load_stack(block, inputs_.decoder, {batch.decoder.tokens, batch.decoder.positions, batch.decoder.segments});
    load_segments(block, batch.decoder.cross_segments, inputs_.cross_segments, inputs_.n_cross_segments);
  }
  load_targets(block, batch.targets);
  feed_->send();
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

Batch batch_without_targets(const EngineOptions& options) {
  Batch batch;
  pad_batch(batch, options);
  const auto rows_of = [&](int64_t length) {
    std::vector<Segment> segments;
    for (int32_t r = 0; r < options.rows && length > 0; ++r) {
      const auto begin = int32_t(r * length), n = int32_t(length);
      segments.push_back({begin, n, begin, n});
    }
    return segments;
  };
  batch.segments = rows_of(options.row_length);
  batch.decoder.segments = rows_of(options.decoder_length);
  return batch;
}

void Engine::begin_sum() {
  parameters_->buckets().new_step();
  first_micro_batch_ = true;
}

void Engine::repeat(Work id, const std::function<void()>& work) {
  if (tape_->observer()) return work();  // which wants to see each operation
  backend_->repeat(int(id), work);
}

// The loss is added when backward, too, has had the micro-batch's random numbers.
void Engine::train_micro_batch(Work id) {
  GradientBuckets& buckets = parameters_->buckets();
  const std::vector<bool> before = buckets.written();
  repeat(id, [&] {
    buckets.set_written(before);
    tape_->clear();
    tape_->set_training(true);
    const Tensor mean = model_.loss(*tape_, inputs_, options_.label_smoothing, false).mean.as_value(-1);
    tape_->backward();
    tape_->clear();
    finish_micro_batch(*backend_, {.state = device_state(), .mean = mean});
    written_ = buckets.written();
  });
  buckets.set_written(written_);
  first_micro_batch_ = false;
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
