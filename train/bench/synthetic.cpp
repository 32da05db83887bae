#include "train/bench/synthetic.h"

#include <functional>

#include "core/base/philox.h"
#include "train/objective/make.h"
#include "train/step.h"

namespace mixtape {

void leave_data_out(Config& c) {
  c.data.tokenizer = "bytes";
  if (c.data.sources.empty()) c.data.sources.push_back({.name = "synthetic", .path = "synthetic"});
  c.eval.interval = 0;
  c.logging.sample_interval = 0;
  if (!c.train.max_steps && !c.train.max_tokens) c.train.max_steps = 1000000;
}

EngineOptions synthetic_options(const Config& config, const RankGrid& grid) {
  EngineOptions options = training_options(config, grid);
  if (!config.memory.offload_directory) options.offload_place.directory = ".";
  return options;
}

void expect_nothing_shared(const Config& config, const std::string& command, const std::string& remedy) {
  const ParallelConfig& p = config.parallel;
  if (p.zero_stage > 0 || p.tensor_parallel_size > 1)
    throw ConfigError("parallel: {} is of one process, and zero_stage {} and tensor_parallel_size {} share out; {}",
                      command, p.zero_stage, p.tensor_parallel_size, remedy);
}

namespace {

// `rows` full rows of one document each.
void fill_stack(int64_t rows, int64_t length, std::vector<int32_t>& tokens, std::vector<int32_t>& positions,
                std::vector<Segment>& segments, const std::function<int32_t()>& token) {
  for (int64_t r = 0; r < rows; ++r) {
    const auto start = int32_t(r * length), count = int32_t(length);
    segments.push_back({start, count, start, count});
    for (int32_t t = 0; t < count; ++t) {
      tokens.push_back(token());
      positions.push_back(t);
    }
  }
}

}  // namespace

GlobalBatch synthetic_batch(const Config& config) {
  const int64_t rows = config.train.micro_batch_size;
  const RowShape row = row_shape(config);
  const int32_t predicting = row.decoder_length > 0 ? row.decoder_length : row.length;
  const PhiloxKey key = philox_key(uint64_t(config.seed));
  uint64_t drawn = 0;
  const auto token = [&] {
    return int32_t(philox(key, drawn++, 0, Purpose::sampling)[0] % uint32_t(config.model.vocab_size));
  };
  GlobalBatch global;
  for (int64_t first = 0; first < config.train.global_batch_size; first += rows) {
    Batch batch;
    batch.rows = int32_t(rows);
    batch.row_length = row.length;
    batch.decoder.row_length = row.decoder_length;
    fill_stack(rows, row.length, batch.tokens, batch.positions, batch.segments, token);
    Batch::Decoder& decoder = batch.decoder;
    if (row.decoder_length > 0)
      fill_stack(rows, row.decoder_length, decoder.tokens, decoder.positions, decoder.segments, token);
    for (int32_t r = 0; r < rows; ++r) {
      if (row.decoder_length > 0)
        decoder.cross_segments.push_back({r * row.decoder_length, row.decoder_length, r * row.length, row.length});
      for (int32_t t = 0; t < predicting; ++t) batch.targets.push_back(t < row.most_targets ? token() : -1);
      batch.sample_ids.push_back(uint64_t(first + r));
      batch.source_ids.push_back(0);
    }
    batch.n_tokens = rows * row.length;
    batch.n_targets = rows * row.most_targets;
    global.n_tokens += batch.n_tokens;
    global.n_targets += batch.n_targets;
    global.micro_batches.push_back(std::move(batch));
  }
  return global;
}

}  // namespace mixtape
