#include "train/data/mixture.h"

#include <algorithm>
#include <cmath>

#include "core/base/error.h"

namespace mixtape {
namespace {

constexpr uint64_t block_samples = 4096;

}  // namespace

Mixture::Mixture(std::vector<MixtureSource> sources) : sources_(std::move(sources)) {
  uint64_t total = 0;
  bool endless = false, positive = false;
  for (const MixtureSource& source : sources_) {
    if (!std::isfinite(source.weight) || source.weight < 0)
      throw ConfigError("data.sources: the weight of {} is {}, expected a number from 0 up", source.name,
                        source.weight);
    if (source.weight == 0) continue;
    positive = true;
    if (!source.limit || __builtin_add_overflow(total, *source.limit, &total)) endless = true;
  }
  if (!positive) throw ConfigError("data.sources: no source has a positive weight, so there is nothing to train on");
  if (!endless) size_ = total;

  State state;
  state.counts.assign(sources_.size(), 0);
  start_phase(state);
  states_.push_back(std::move(state));
}

void Mixture::start_phase(State& state) const {
  state.phase_start = state.sample;
  state.phase_counts = state.counts;
  state.weights.assign(sources_.size(), 0);
  double sum = 0;
  for (size_t j = 0; j < sources_.size(); ++j) {
    if (sources_[j].limit && state.counts[j] >= *sources_[j].limit) continue;
    state.weights[j] = sources_[j].weight;
    sum += sources_[j].weight;
  }
  // Weights that sum to 1 already keep their bits: the blend of Megatron-LM is reproduced from the weights as given.
  if (std::abs(sum - 1) > 1e-12 && sum > 0)
    for (double& weight : state.weights) weight /= sum;
}

int Mixture::step(State& state) const {
  const double i = double(std::max<uint64_t>(state.sample - state.phase_start, 1));
  int best = -1;
  double best_lag = 0;
  for (size_t j = 0; j < sources_.size(); ++j) {
    if (state.weights[j] <= 0) continue;
    const double lag = state.weights[j] * i - double(state.counts[j] - state.phase_counts[j]);
    if (best < 0 || lag > best_lag) best = int(j), best_lag = lag;
  }
  ++state.sample;
  const uint64_t count = ++state.counts[size_t(best)];
  const auto& limit = sources_[size_t(best)].limit;
  if (limit && count >= *limit) start_phase(state);
  return best;
}

void Mixture::check(uint64_t sample) const {
  if (!size_ || sample < *size_) return;
  std::string names;
  for (const MixtureSource& source : sources_)
    if (source.weight > 0)
      names += fmt::format("{}{} ({} samples)", names.empty() ? "" : ", ", source.name, source.limit.value_or(0));
  throw DataError(
      "the data ends after {} samples, and sample {} was asked for: max_epochs is over for every source: "
      "{}. Raise data.sources[].max_epochs, or train fewer steps",
      *size_, sample, names);
}

std::shared_ptr<const Mixture::Block> Mixture::block(uint64_t index) const {
  const std::lock_guard lock(mutex_);
  if (latest_ && latest_index_ == index) return latest_;
  while (states_.size() <= index) {
    State state = states_.back();
    for (uint64_t k = 0; k < block_samples; ++k) step(state);
    states_.push_back(std::move(state));
  }
  auto block = std::make_shared<Block>();
  block->begin = states_[index];
  State state = block->begin;
  const uint64_t samples = size_ ? std::min(block_samples, *size_ - state.sample) : block_samples;
  for (uint64_t k = 0; k < samples; ++k) {
    const int source = step(state);
    block->sources.push_back(uint32_t(source));
    block->ordinals.push_back(uint32_t(state.counts[size_t(source)] - 1 - block->begin.counts[size_t(source)]));
  }
  if (samples == block_samples && states_.size() == index + 1) states_.push_back(std::move(state));
  latest_ = block;
  latest_index_ = index;
  return block;
}

Mixture::Position Mixture::position(uint64_t sample) const {
  check(sample);
  const auto in_block = block(sample / block_samples);
  const size_t k = sample % block_samples;
  const uint32_t source = in_block->sources[k];
  return {int(source), in_block->begin.counts[source] + in_block->ordinals[k]};
}

std::vector<uint64_t> Mixture::counts(uint64_t samples) const {
  if (samples == 0) return std::vector<uint64_t>(sources_.size(), 0);
  check(samples - 1);
  const auto in_block = block((samples - 1) / block_samples);
  std::vector<uint64_t> counts = in_block->begin.counts;
  for (uint64_t k = 0; k <= (samples - 1) % block_samples; ++k) ++counts[in_block->sources[k]];
  return counts;
}

}  // namespace mixtape
