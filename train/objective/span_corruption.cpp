#include "train/objective/span_corruption.h"

#include <algorithm>
#include <cmath>

#include "core/base/error.h"
#include "train/objective/row.h"

namespace mixtape {
namespace {

// std::round takes ties away from zero; the published lengths need them to even.
int32_t round_to_even(double x) { return int32_t(std::nearbyint(x)); }

}  // namespace

SpanPlan spans_of(int32_t raw_length, double noise_density, double mean_span_length) {
  const int32_t length = std::max(raw_length, 2);
  const int32_t noise = std::clamp(round_to_even(length * noise_density), 1, length - 1);
  // Parts of the noise and of the rest alternate, so there are as many of both.
  const int32_t spans = std::min({std::max(round_to_even(noise / mean_span_length), 1), noise, length - noise});
  return {.raw_length = raw_length,
          .inputs_length = length - noise + spans + 1,
          .targets_length = noise + spans + 1,
          .noise_tokens = noise,
          .noise_spans = spans};
}

SpanPlan plan_spans(int32_t inputs_length, double noise_density, double mean_span_length) {
  const auto plan_of = [&](int32_t raw) { return spans_of(raw, noise_density, mean_span_length); };
  SpanPlan plan = plan_of(2);
  if (inputs_length < plan.inputs_length)
    throw ConfigError("data.seq_length is {}, expected at least {} for objective.name span_corruption", inputs_length,
                      plan.inputs_length);
  while (plan_of(plan.raw_length + 1).inputs_length <= inputs_length) plan = plan_of(plan.raw_length + 1);
  // seqio's exception: with half the tokens cut out, targets are not longer than inputs.
  if (noise_density == 0.5 && plan.targets_length > plan.inputs_length) plan = plan_of(plan.raw_length - 1);
  plan.inputs_length = inputs_length;
  return plan;
}

std::vector<int32_t> random_parts(int32_t total, int32_t parts, Draws& draws) {
  std::vector<int32_t> lengths{1};
  int32_t cuts = parts - 1;
  for (int32_t places = total - 1; places > 0; --places) {  // between two things, still to be decided
    if (int32_t(draws.below(uint32_t(places))) < cuts) {
      --cuts;
      lengths.push_back(0);
    }
    ++lengths.back();
  }
  return lengths;
}

std::vector<uint8_t> noise_mask(int32_t length, double noise_density, double mean_span_length, Draws& draws) {
  const SpanPlan counts = spans_of(length, noise_density, mean_span_length);
  const int32_t rest = std::max(length, 2) - counts.noise_tokens;
  const auto noise_lengths = random_parts(counts.noise_tokens, counts.noise_spans, draws);
  const auto rest_lengths = random_parts(rest, counts.noise_spans, draws);
  std::vector<uint8_t> mask;
  for (size_t i = 0; i < noise_lengths.size(); ++i) {
    mask.resize(mask.size() + size_t(rest_lengths[i]), 0);
    mask.resize(mask.size() + size_t(noise_lengths[i]), 1);
  }
  mask.resize(size_t(length));
  return mask;
}

std::vector<int32_t> with_sentinels(std::span<const int32_t> tokens, std::span<const uint8_t> mask, bool kept,
                                    const SpanCorruption::Ids& ids) {
  std::vector<int32_t> out;
  size_t sentinel = 0;
  for (size_t t = 0; t < tokens.size(); ++t) {
    const bool cut = (mask[t] != 0) != kept, run_begins = t == 0 || (mask[t] != 0) != (mask[t - 1] != 0);
    if (!cut)
      out.push_back(tokens[t]);
    else if (run_begins)
      out.push_back(ids.sentinels[sentinel++]);
  }
  out.push_back(ids.eos);
  return out;
}

SpanCorruption::SpanCorruption(std::unique_ptr<const Dataset> data, const ObjectiveConfig& config, const SpanPlan& plan,
                               Ids ids, uint64_t seed)
    : TextObjective(std::move(data)),
      noise_density_(config.noise_density),
      mean_span_length_(config.mean_span_length),
      plan_(plan),
      ids_(std::move(ids)),
      seed_(seed) {
  if (ids_.sentinels.size() < size_t(plan_.noise_spans))
    throw ConfigError(
        "objective.name: span_corruption cuts {} spans out of a sequence of data.seq_length {}, but the tokenizer has "
        "{} "
        "sentinels (<extra_id_0>, ...); use a tokenizer with more, shorter sequences, or a greater "
        "objective.mean_span_length",
        plan_.noise_spans, plan_.inputs_length, ids_.sentinels.size());
}

void SpanCorruption::append(const Sample& sample, Batch& batch) const {
  Draws draws(seed_, sample.index);
  const std::span<const int32_t> text = sample.tokens;
  const auto mask = noise_mask(int32_t(text.size()), noise_density_, mean_span_length_, draws);
  const auto inputs = with_sentinels(text, mask, false, ids_);
  const auto targets = with_sentinels(text, mask, true, ids_);
  const auto n_inputs = int32_t(inputs.size()), n_targets = int32_t(targets.size());
  const auto row = int32_t(batch.tokens.size()), decoder_row = int32_t(batch.decoder.tokens.size());

  append_padded(inputs, plan_.inputs_length, ids_.start, batch.tokens);
  append_segments(documents_of_row({}, n_inputs), plan_.inputs_length, batch.positions, batch.segments);

  Batch::Decoder& decoder = batch.decoder;
  decoder.tokens.push_back(ids_.start);
  append_padded(std::span(targets).first(targets.size() - 1), plan_.targets_length - 1, ids_.start, decoder.tokens);
  append_padded(targets, plan_.targets_length, -1, batch.targets);
  append_segments(documents_of_row({}, n_targets), plan_.targets_length, decoder.positions, decoder.segments);
  decoder.cross_segments.push_back({decoder_row, n_targets, row, n_inputs});

  batch.n_tokens += n_inputs;
  batch.n_targets += n_targets;
}

}  // namespace mixtape
