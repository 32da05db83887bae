// A rank's engine and steps of a tiny model, with batches of random tokens.
#pragma once

#include <sstream>
#include <string>
#include <vector>

#include "core/base/philox.h"
#include "train/objective/make.h"
#include "train/parallel/rank_grid.h"
#include "train/step.h"

namespace mixtape {

// Each of `more` is one setting or several with blanks between. About 190,000 parameters: three chunks, so that of more
// ranks some have no shard.
inline Config config_of(const std::vector<std::string>& more) {
  std::vector<std::string> overrides{
      "model.n_layers=2",         "model.d_model=64",       "model.n_heads=4",    "model.vocab_size=517",
      "data.seq_length=24",       "model.max_positions=48", "model.dropout=0.1",  "train.micro_batch_size=2",
      "train.max_steps=9",        "runtime.threads=1",      "determinism=strict", "train.global_batch_size=16",
      "logging.sample_interval=0"};
  for (const std::string& settings : more) {
    std::istringstream words(settings);
    for (std::string word; words >> word;) overrides.push_back(word);
  }
  return load_config({}, overrides).config;
}

// Random tokens in the rows of the config's objective; micro-batch n of step s begins with 2 n + s positions without a
// target.
inline Batch random_micro_batch(const Config& config, uint64_t step, int64_t number) {
  const RowShape row = row_shape(config);
  Batch b;
  b.rows = int32_t(config.train.micro_batch_size), b.row_length = row.length;
  b.decoder.row_length = row.decoder_length;
  const auto draw = [&](int32_t i, int kind) {
    const auto draws = philox(philox_key(7, step), uint64_t(number), uint32_t(i), Purpose::test);
    return int32_t(draws[size_t(kind)] % uint32_t(config.model.vocab_size));
  };
  const auto fill = [&](int32_t length, int kind, std::vector<int32_t>& tokens, std::vector<int32_t>& positions,
                        std::vector<Segment>& segments) {
    for (int32_t i = 0; i < b.rows * length; ++i) tokens.push_back(draw(i, kind)), positions.push_back(i % length);
    for (int32_t r = 0; r < b.rows && length > 0; ++r) segments.push_back({r * length, length, r * length, length});
  };
  fill(row.length, 0, b.tokens, b.positions, b.segments);
  fill(row.decoder_length, 2, b.decoder.tokens, b.decoder.positions, b.decoder.segments);
  if (row.decoder_length)
    for (int32_t r = 0; r < b.rows; ++r)
      b.decoder.cross_segments.push_back({r * row.decoder_length, row.decoder_length, r * row.length, row.length});
  const int32_t predicting = row.decoder_length ? row.decoder_length : row.length;
  for (int32_t i = 0; i < b.rows * predicting; ++i) {
    const bool none = i < 2 * number + int64_t(step) || (row.most_targets && i % predicting >= row.most_targets);
    b.targets.push_back(none ? -1 : draw(i, 1));
    b.n_targets += !none;
  }
  b.n_tokens = b.rows * b.row_length;
  return b;
}

// A rank's part of step `step`, of n micro-batches, as the loader cuts it.
inline GlobalBatch batch_of(const Config& config, uint64_t step, int64_t n, const Communicator& ranks) {
  GlobalBatch g;
  const bool in_turns = sums_each_micro_batch(config, ranks);
  const int64_t begin = in_turns ? ranks.rank() : n * ranks.rank() / ranks.size();
  const int64_t end = in_turns ? n : n * (ranks.rank() + 1) / ranks.size();
  g.of_micro_batches = n;
  g.first_micro_batch = uint64_t(begin);
  g.stride = in_turns ? ranks.size() : 1;
  for (int64_t i = begin; i < end; i += g.stride) {
    g.micro_batches.push_back(random_micro_batch(config, step, i));
    g.n_targets += g.micro_batches.back().n_targets;
    g.n_tokens += g.micro_batches.back().n_tokens;
  }
  return g;
}

// One rank's engine and step.
struct RankRun {
  RankRun(const Config& config, Communicator& ranks)
      : config(config),
        ranks(ranks),
        grid(ranks, int(config.parallel.tensor_parallel_size)),
        options(training_options(config, grid)),
        plan(plan_training(options, config, grid)),
        engine(options, plan.memory()),
        step(engine, config, grid) {
    engine.parameters().initialise(uint64_t(config.seed));
  }
  StepResult advance(int64_t micro_batches, double learning_rate = 3e-3) {
    return step.run(batch_of(config, engine.state().attempts, micro_batches, grid.data()), learning_rate);
  }
  const Config& config;
  Communicator& ranks;
  RankGrid grid;
  EngineOptions options;
  MemoryPlan plan;
  Engine engine;
  TrainingStep step;
};

}  // namespace mixtape
