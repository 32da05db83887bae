#include "train/objective/span_corruption.h"

#include <set>

#include "tests/data/objective_support.h"

namespace mixtape::test {
namespace {

TEST(SpanCorruption, GoldenLengths) {
  for (const auto& c : golden_objective("span_corruption", "lengths")) {
    const SpanPlan plan = plan_spans(c.at("inputs_length"), c.at("noise_density"), c.at("mean_span"));
    EXPECT_EQ(plan.raw_length, c.at("raw_length").get<int>()) << c;
    EXPECT_EQ(plan.targets_length, c.at("targets_length").get<int>()) << c;
    EXPECT_EQ(plan.noise_tokens, c.at("noise_tokens").get<int>()) << c;
    EXPECT_EQ(plan.noise_spans, c.at("noise_spans").get<int>()) << c;
    EXPECT_EQ(spans_of(plan.raw_length, c.at("noise_density"), c.at("mean_span")).inputs_length, plan.inputs_length);
  }
}

TEST(SpanCorruption, GoldenCountsOfAText) {
  for (const auto& c : golden_objective("span_corruption", "mask_counts")) {
    const SpanPlan plan = spans_of(c.at("length"), c.at("noise_density"), c.value("mean_span", 3.0));
    EXPECT_EQ(plan.noise_tokens, c.at("noise_tokens").get<int>()) << c;
    EXPECT_EQ(plan.noise_spans, c.at("noise_spans").get<int>()) << c;
  }
}

SpanCorruption::Ids ids_from(int32_t first_sentinel, int32_t eos, int sentinels = 100) {
  SpanCorruption::Ids ids{.eos = eos};
  for (int i = 0; i < sentinels; ++i) ids.sentinels.push_back(first_sentinel - i);
  return ids;
}

TEST(SpanCorruption, GoldenCases) {
  for (const auto& c : golden_objective("span_corruption", "cases")) {
    const auto tokens = c.at("tokens").get<Tokens>();
    const auto mask = c.at("mask").get<std::vector<uint8_t>>();
    const SpanCorruption::Ids ids = ids_from(c.at("first_sentinel"), c.at("eos"));
    EXPECT_EQ(with_sentinels(tokens, mask, false, ids), c.at("inputs").get<Tokens>());
    EXPECT_EQ(with_sentinels(tokens, mask, true, ids), c.at("targets").get<Tokens>());
    if (!c.contains("noise_tokens")) continue;
    const SpanPlan plan = spans_of(int32_t(tokens.size()), c.at("noise_density"), c.at("mean_span"));
    EXPECT_EQ(plan.noise_tokens, c.at("noise_tokens").get<int>());
    EXPECT_EQ(plan.noise_spans, int(c.at("noise_lengths").size()));
  }
}

TEST(SpanCorruption, PartsAreAnyOfTheWaysToCutWithEqualChance) {
  std::map<Tokens, int> counts;
  Draws draws(1, 1);
  constexpr int draws_made = 20000;
  for (int i = 0; i < draws_made; ++i) {
    const Tokens parts = random_parts(6, 3, draws);
    EXPECT_EQ(std::accumulate(parts.begin(), parts.end(), 0), 6);
    EXPECT_GE(*std::min_element(parts.begin(), parts.end()), 1);
    ++counts[parts];
  }
  EXPECT_EQ(counts.size(), 10u);  // 5 choose 2
  for (const auto& [parts, count] : counts)
    EXPECT_NEAR(count, draws_made / 10, 4 * std::sqrt(draws_made * 0.1 * 0.9));  // ten at once: four sigma
  EXPECT_EQ(random_parts(4, 4, draws), (Tokens{1, 1, 1, 1}));
  EXPECT_EQ(random_parts(1, 1, draws), (Tokens{1}));
}

TEST(SpanCorruption, MasksHaveExactCountsBeginKeptAndEndCut) {
  for (const auto& [density, mean] : {std::pair{0.15, 3.0}, {0.5, 3.0}, {0.9, 1.0}, {0.3, 10.0}}) {
    for (const int32_t length : {1, 2, 3, 5, 30, 190, 568}) {
      const SpanPlan plan = spans_of(length, density, mean);
      double second = 0;
      constexpr int repeats = 300;
      for (uint64_t i = 0; i < repeats; ++i) {
        Draws draws(1, i);
        const auto mask = noise_mask(length, density, mean, draws);
        ASSERT_EQ(mask.size(), size_t(length));
        ASSERT_EQ(mask[0], 0);
        if (length < 2) continue;
        ASSERT_EQ(mask.back(), 1);
        int32_t noise = 0, spans = 0;
        for (size_t t = 1; t < mask.size(); ++t) noise += mask[t], spans += mask[t] > mask[t - 1];
        ASSERT_EQ(noise, plan.noise_tokens);
        ASSERT_EQ(spans, plan.noise_spans);
        second += mask[1];
      }
      // The first part of the rest has one token where one of rest - 1 places is cut of which spans - 1 are.
      const double rest = length - plan.noise_tokens, spans = plan.noise_spans;
      if (rest > 2) {
        const double p = (spans - 1) / (rest - 1);
        EXPECT_NEAR(second / repeats, p, 4 * std::sqrt(p * (1 - p) / repeats) + 1e-9) << length << " " << density;
      }
    }
  }
}

SpanCorruption span_corruption_objective(int32_t inputs_length, double density = 0.15, uint64_t seed = 1) {
  const ObjectiveConfig config{.noise_density = density};
  const SpanPlan plan = plan_spans(inputs_length, density, 3);
  return SpanCorruption(objective_data(plan.raw_length, Framing::plain), config, plan, ids_from(1999, 2, 200), seed);
}

// Packed batches have no padding, on either side, and the text can be put together again.
TEST(SpanCorruption, BatchesAreFullAndHoldTheText) {
  for (const int32_t length : {8, 64, 114, 512}) {
    for (const double density : {0.15, 0.5}) {
      const SpanCorruption t5 = span_corruption_objective(length, density);
      const RowShape shape = t5.shape();
      Batch batch;
      const std::vector<uint64_t> samples{0, 1, 2, 77, 1000};
      t5.fill(samples, batch);
      EXPECT_EQ(batch.row_length, length);
      EXPECT_EQ(batch.n_tokens, length * 5);
      EXPECT_EQ(batch.n_targets, shape.decoder_length * 5);
      ASSERT_EQ(batch.tokens.size(), size_t(length) * 5);
      ASSERT_EQ(batch.decoder.tokens.size(), batch.targets.size());
      expect_sound_segments(batch.segments, batch.positions, length);
      expect_sound_segments(batch.decoder.segments, batch.decoder.positions, shape.decoder_length);
      EXPECT_EQ(batch.segments.size(), 5u);
      for (int32_t r = 0; r < 5; ++r) {
        EXPECT_EQ(batch.decoder.cross_segments[size_t(r)],
                  (Segment{r * shape.decoder_length, shape.decoder_length, r * length, length}));
        const Tokens inputs(batch.tokens.begin() + r * length, batch.tokens.begin() + (r + 1) * length);
        const auto at = size_t(r * shape.decoder_length), end = at + size_t(shape.decoder_length);
        EXPECT_EQ(batch.decoder.tokens[at], 0);
        for (size_t t = at + 1; t < end; ++t) EXPECT_EQ(batch.decoder.tokens[t], batch.targets[t - 1]);
        EXPECT_EQ(inputs.back(), 2);
        EXPECT_EQ(batch.targets[end - 1], 2);
        Sample sample;
        t5.data().sample(samples[size_t(r)], sample);
        Tokens text;
        size_t next = at;
        for (size_t t = 0; t + 1 < inputs.size(); ++t) {
          if (inputs[t] < 1800) {
            text.push_back(inputs[t]);
            continue;
          }
          ASSERT_EQ(batch.targets[next], inputs[t]);  // the same sentinel
          for (++next; batch.targets[next] < 1800 && next + 1 < end; ++next) text.push_back(batch.targets[next]);
        }
        EXPECT_EQ(text, sample.tokens);
      }
    }
  }
}

TEST(SpanCorruption, TheLastSampleOfDataThatEndsIsPadded) {
  const std::vector<Tokens> documents{{10, 11, 12, 13, 14, 15, 16}};
  const SpanPlan plan = plan_spans(32, 0.15, 3);
  const SpanCorruption t5(
      std::make_unique<Dataset>(std::vector<DatasetSource>{{"a", std::make_shared<MemorySource>(documents), 1, 1.0}},
                                Vocabulary{.size = 100, .eos_id = 2},
                                DatasetOptions{.seq_length = plan.raw_length, .framing = Framing::plain}),
      {}, plan, ids_from(99, 2), 1);
  Batch batch;
  t5.fill(std::vector<uint64_t>{0}, batch);
  EXPECT_EQ(batch.tokens, (Tokens{10, 11, 12, 13, 14, 15, 99, 2, 0, 0, 0, 0, 0, 0, 0, 0,
                                  0,  0,  0,  0,  0,  0,  0,  0, 0, 0, 0, 0, 0, 0, 0, 0}));
  EXPECT_EQ(batch.targets, (Tokens{99, 16, 2, -1, -1, -1, -1, -1}));
  EXPECT_EQ(batch.decoder.tokens, (Tokens{0, 99, 16, 0, 0, 0, 0, 0}));
  EXPECT_EQ(batch.decoder.cross_segments, (std::vector<Segment>{{0, 3, 0, 8}}));
  EXPECT_EQ(batch.segments, (std::vector<Segment>{{0, 8, 0, 8}, {8, 24, 8, 24}}));
  EXPECT_EQ(batch.n_tokens, 8);
  EXPECT_EQ(batch.n_targets, 3);
}

TEST(SpanCorruption, IsAFunctionOfSeedAndSample) {
  expect_pure(span_corruption_objective(64), {&Batch::tokens, &Batch::targets});
  Batch one, other;
  span_corruption_objective(64, 0.15, 1).fill(std::vector<uint64_t>{5}, one);
  span_corruption_objective(64, 0.15, 2).fill(std::vector<uint64_t>{5}, other);
  EXPECT_NE(one.tokens, other.tokens);
}

TEST(SpanCorruption, TooFewSentinelsAreRefusedBeforeTheRun) {
  const SpanPlan plan = plan_spans(2048, 0.15, 3);
  const std::string error = error_of(
      [&] { SpanCorruption(objective_data(plan.raw_length, Framing::plain), {}, plan, ids_from(1999, 2, 100), 1); });
  EXPECT_NE(error.find("cuts 114 spans"), std::string::npos) << error;
  EXPECT_NE(error.find("100 sentinels"), std::string::npos) << error;
  EXPECT_NE(error_of([] { plan_spans(2, 0.15, 3); }).find("data.seq_length is 2, expected at least 3"),
            std::string::npos);
}

}  // namespace
}  // namespace mixtape::test
