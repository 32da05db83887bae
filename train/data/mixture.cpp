#include "train/data/mixture.h"

#include <algorithm>
#include <cmath>

#include "core/base/error.h"

namespace mixtape {
namespace {

constexpr uint64_t block_samples = 4096;

}  // namespace

Mixture::Mixture(std::vector<MixtureSource> sources, std::vector<MixtureStage> stages) : sources_(std::move(sources)) {
  stages_.emplace_back();
  for (const MixtureSource& source : sources_) stages_[0].weights.push_back(source.weight);
  stages_.insert(stages_.end(), stages.begin(), stages.end());
  check_weights();

  State state;
  state.counts.assign(sources_.size(), 0);
  start_phase(state);
  size_ = end_from(state);
  states_.push_back(std::move(state));
}

void Mixture::check_weights() const {
  for (const MixtureStage& stage : stages_) {
    if (stage.weights.size() != sources_.size())
      throw ConfigError("data.stages: {} weights for {} sources, expected one each", stage.weights.size(),
                        sources_.size());
    for (size_t j = 0; j < sources_.size(); ++j)
      if (!std::isfinite(stage.weights[j]) || stage.weights[j] < 0)
        throw ConfigError("data.sources: the weight of {} is {}, expected a number from 0 up", sources_[j].name,
                          stage.weights[j]);
    if (std::ranges::none_of(stage.weights, [](double w) { return w > 0; }))
      throw ConfigError("data.sources: no source has a positive weight, so there is nothing to train on");
  }
  for (size_t i = 1; i < stages_.size(); ++i)
    if (stages_[i].first_sample <= stages_[i - 1].first_sample)
      throw ConfigError("data.stages: expected each to begin after the one before");
}

std::optional<uint64_t> Mixture::end_from(State state) const {
  if (std::ranges::none_of(sources_, [](const MixtureSource& s) { return s.limit.has_value(); })) return std::nullopt;
  while (state.sample < stages_.back().first_sample)
    if (step(state) < 0) return state.sample;
  uint64_t end = state.sample;
  for (size_t j = 0; j < sources_.size(); ++j) {
    if (stages_.back().weights[j] <= 0) continue;
    const auto& limit = sources_[j].limit;
    if (!limit || __builtin_add_overflow(end, *limit - std::min(*limit, state.counts[j]), &end)) return std::nullopt;
  }
  return end;
}

void Mixture::start_phase(State& state) const {
  state.phase_start = state.sample;
  state.phase_counts = state.counts;
  state.weights.assign(sources_.size(), 0);
  double sum = 0;
  for (size_t j = 0; j < sources_.size(); ++j) {
    if (sources_[j].limit && state.counts[j] >= *sources_[j].limit) continue;
    state.weights[j] = stages_[state.stage].weights[j];
    sum += state.weights[j];
  }
  // Weights that sum to 1 already keep their bits: the blend of Megatron-LM is reproduced from the weights as given.
  if (std::abs(sum - 1) > 1e-12 && sum > 0)
    for (double& weight : state.weights) weight /= sum;
}

int Mixture::step(State& state) const {
  if (state.stage + 1 < stages_.size() && state.sample >= stages_[state.stage + 1].first_sample) {
    ++state.stage;
    start_phase(state);
  }
  const double i = double(std::max<uint64_t>(state.sample - state.phase_start, 1));
  int best = -1;
  double best_lag = 0;
  for (size_t j = 0; j < sources_.size(); ++j) {
    if (state.weights[j] <= 0) continue;
    const double lag = state.weights[j] * i - double(state.counts[j] - state.phase_counts[j]);
    if (best < 0 || lag > best_lag) best = int(j), best_lag = lag;
  }
  if (best < 0) return -1;
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
    if (source.limit) names += fmt::format("{}{} ({} samples)", names.empty() ? "" : ", ", source.name, *source.limit);
  throw DataError(
      "the data ends after {} samples, and sample {} was asked for: max_epochs is over for every source with a weight: "
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
