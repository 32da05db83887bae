#include "train/bench/synthetic.h"

#include "core/base/philox.h"

namespace mixtape {

void leave_data_out(Config& c) {
  c.data.tokenizer = "bytes";
  if (c.data.sources.empty()) c.data.sources.push_back({.name = "synthetic", .path = "synthetic"});
  c.eval.interval = 0;
  c.logging.sample_interval = 0;
  if (!c.train.max_steps && !c.train.max_tokens) c.train.max_steps = 1000000;
}

GlobalBatch synthetic_batch(const Config& config) {
  const int64_t rows = config.train.micro_batch_size, length = config.data.seq_length;
  const PhiloxKey key = philox_key(uint64_t(config.seed));
  const auto token = [&](int64_t sample, int64_t position) {
    const uint64_t index = uint64_t(sample) * uint64_t(length + 1) + uint64_t(position);
    return int32_t(philox(key, index, 0, Purpose::sampling)[0] % uint32_t(config.model.vocab_size));
  };
  GlobalBatch global;
  for (int64_t first = 0; first < config.train.global_batch_size; first += rows) {
    Batch batch;
    batch.rows = int32_t(rows);
    batch.row_length = int32_t(length);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t t = 0; t < length; ++t) {
        batch.tokens.push_back(token(first + r, t));
        batch.targets.push_back(token(first + r, t + 1));
        batch.positions.push_back(int32_t(t));
      }
      const int32_t start = int32_t(r * length), count = int32_t(length);
      batch.segments.push_back({start, count, start, count});
      batch.sample_ids.push_back(uint64_t(first + r));
      batch.source_ids.push_back(0);
    }
    batch.n_tokens = batch.n_targets = rows * length;
    global.n_tokens += batch.n_tokens;
    global.n_targets += batch.n_targets;
    global.micro_batches.push_back(std::move(batch));
  }
  return global;
}

}  // namespace mixtape
