// Span corruption (T5, arXiv 1910.10683): spans of the text are cut out, a sentinel stands for each, and the decoder
// writes sentinels and spans.
//
//   text     Thank you for inviting me to your party last week
//   inputs   Thank you <X> me to your party <Y> week </s>
//   targets  <X> for inviting <Y> last </s>                       decoder inputs: <pad>, then the targets but the last
//
// Of L tokens, noise = round(L density) are cut out in spans = round(noise / mean span) spans, ties to even; noise and
// rest are each cut into `spans` parts, all ways equally likely; the rest comes first, so the first token is never cut
// out and the last one always is. Sentinels are <extra_id_0>, <extra_id_1>, ..., in T5's vocabularies V - 1, V - 2,
// ...; there is none after the last span.
//
// A row of inputs has seq_length tokens. The length L of text that fills it exactly, end token included, is planned
// (plan_spans), and so is the length of the targets, so neither side has padding. Documents follow one another with
// nothing between (Framing::plain) and spans run across them, as in T5: there is no document mask. The last sample of
// data that ends, and documents that are not packed, may be shorter and padded.
#pragma once

#include "train/config/objective.h"
#include "train/objective/draws.h"
#include "train/objective/objective.h"

namespace mixtape {

struct SpanPlan {
  int32_t raw_length = 0;  // tokens of text
  int32_t inputs_length = 0, targets_length = 0;
  int32_t noise_tokens = 0, noise_spans = 0;
};

// The longest text whose inputs have at most `inputs_length` tokens. seqio's random_spans_helper.
SpanPlan plan_spans(int32_t inputs_length, double noise_density, double mean_span_length);
// The same for a given text.
SpanPlan spans_of(int32_t raw_length, double noise_density, double mean_span_length);

class SpanCorruption final : public TextObjective {
 public:
  struct Ids {
    int32_t eos = 0, start = 0;      // start: the decoder's first token and padding; T5's pad
    std::vector<int32_t> sentinels;  // in the order of use
  };
  // `data`: Framing::plain, with sequences of plan_spans(...).raw_length. Throws ConfigError if there are fewer
  // sentinels than spans.
  SpanCorruption(std::unique_ptr<const Dataset> data, const ObjectiveConfig& config, const SpanPlan& plan, Ids ids,
                 uint64_t seed);

  RowShape shape() const override {
    return {
        .length = plan_.inputs_length, .decoder_length = plan_.targets_length, .most_targets = plan_.targets_length};
  }

 private:
  void append(const Sample& sample, Batch& batch) const override;

  double noise_density_, mean_span_length_;
  SpanPlan plan_;
  Ids ids_;
  uint64_t seed_;
};

// `total` things in order, cut into `parts` parts of at least one; 1 <= parts <= total.
std::vector<int32_t> random_parts(int32_t total, int32_t parts, Draws& draws);

// For each of `length` tokens, whether it is cut out.
std::vector<uint8_t> noise_mask(int32_t length, double noise_density, double mean_span_length, Draws& draws);

// The tokens where `mask` is `kept`, a sentinel for each run of others, and eos.
std::vector<int32_t> with_sentinels(std::span<const int32_t> tokens, std::span<const uint8_t> mask, bool kept,
                                    const SpanCorruption::Ids& ids);

}  // namespace mixtape
