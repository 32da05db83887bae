// A model of 32 channels and 50 tokens, and a batch for it: two rows of 16 tokens.
#pragma once

#include "train/config/config.h"
#include "train/engine.h"
#include "train/objective/batch.h"

namespace mixtape {

inline Config tiny_config(const std::vector<std::string>& more) {
  std::vector<std::string> overrides{"model.d_model=32",   "model.vocab_size=50",       "model.max_positions=16",
                                     "data.seq_length=16", "train.micro_batch_size=2",  "train.global_batch_size=2",
                                     "train.max_steps=4",  "logging.sample_interval=0", "determinism=strict"};
  overrides.insert(overrides.end(), more.begin(), more.end());
  return load_config({}, overrides).config;
}

inline GlobalBatch tiny_batch() {
  Batch batch{.rows = 2, .row_length = 16};
  for (int32_t i = 0; i < 32; ++i) {
    batch.tokens.push_back(i * 7 % 50);
    batch.targets.push_back((i * 7 + 3) % 50);
    batch.positions.push_back(i % 16);
  }
  batch.segments = {{0, 16, 0, 16}, {16, 16, 16, 16}};
  GlobalBatch global{.micro_batches = {batch}};
  global.n_targets = 32;
  return global;
}

// Weights, masters and moments, wherever they are.
inline std::vector<std::vector<std::byte>> all_bytes(Engine& engine) {
  const Parameters& p = engine.parameters();
  std::vector<std::vector<std::byte>> all;
  for (const FlatState& s :
       {FlatState(engine.backend(), p.weights), p.master, p.m.values, p.m.scales, p.v.values, p.v.scales}) {
    all.emplace_back(size_t(s ? s.bytes() : 0));
    if (s && s.count() > 0) s.read(all.back().data(), 0, s.count());
  }
  return all;
}

}  // namespace mixtape
