#include "train/objective/masked_lm.h"

#include <map>
#include <set>

#include "tests/data/objective_support.h"

namespace mixtape::test {
namespace {

Tokens positions_of(const std::vector<TokenRange>& ranges) {
  Tokens positions;
  for (const TokenRange range : ranges)
    for (int32_t t = range.begin; t < range.end(); ++t) positions.push_back(t);
  return positions;
}

TEST(MaskedLm, GoldenCounts) {
  for (const auto& c : golden_objective("masked_lm", "counts"))
    EXPECT_EQ(bert_count(c.at("length"), 0.15, c.at("max_predictions").get<int64_t>()), c.at("count").get<int>());
  EXPECT_EQ(bert_count(512, 0.15, std::nullopt), 77);
}

// Which words there are and which of them are taken, given the order.
TEST(MaskedLm, GoldenChoices) {
  for (const auto& c : golden_objective("masked_lm", "cases")) {
    const auto ids = c.at("ids").get<Tokens>();
    const auto pieces = c.at("pieces").get<std::vector<std::string>>();
    TokenTable table;
    table.is_special.assign(30522, 0);
    table.begins_word.assign(30522, 0);
    for (size_t t = 0; t < ids.size(); ++t) {
      table.is_special[size_t(ids[t])] = pieces[t] == "[CLS]" || pieces[t] == "[SEP]";
      table.begins_word[size_t(ids[t])] = !pieces[t].starts_with("##");
    }
    const auto words = maskable(ids, table, c.at("whole_word"));
    const auto expected = c.at("words").get<std::vector<Tokens>>();
    ASSERT_EQ(words.size(), expected.size());
    for (size_t w = 0; w < words.size(); ++w) EXPECT_EQ(positions_of({words[w]}), expected[w]);
    const int32_t count = bert_count(int32_t(ids.size()), c.at("rate"), c.at("max_predictions").get<int64_t>());
    EXPECT_EQ(count, c.at("count").get<int32_t>());
    EXPECT_EQ(positions_of(take_words(words, c.at("word_order").get<Tokens>(), count)), c.at("chosen").get<Tokens>());
  }
}

struct Setting {
  MaskingRule rule;
  MaskingUnit unit;
};
const Setting settings[] = {
    {MaskingRule::roberta, MaskingUnit::token},   {MaskingRule::bert, MaskingUnit::token},
    {MaskingRule::bernoulli, MaskingUnit::token}, {MaskingRule::roberta, MaskingUnit::whole_word},
    {MaskingRule::bert, MaskingUnit::whole_word}, {MaskingRule::bernoulli, MaskingUnit::whole_word},
    {MaskingRule::roberta, MaskingUnit::span},    {MaskingRule::bert, MaskingUnit::span}};

constexpr int32_t vocab_size = 2000, length = 128;

MaskedLm masked_lm_objective(const Setting& setting, uint64_t seed = 1, bool document_mask = true, int longest = 300) {
  return MaskedLm(objective_data(length, Framing::enclosed, longest, vocab_size),
                  {.masking = setting.rule, .masking_unit = setting.unit}, plain_table(vocab_size, 3), document_mask,
                  seed);
}

// What holds for every row under every rule; and the mean number of targets.
TEST(MaskedLm, RowsAreSoundAndCountsAreExact) {
  for (const Setting& setting : settings) {
    SCOPED_TRACE(fmt::format("{} {}", setting.rule, setting.unit));
    const MaskedLm lm = masked_lm_objective(setting);
    double sum = 0;
    constexpr int rows = 600;
    std::set<int64_t> counts;
    for (uint64_t index = 0; index < rows; ++index) {
      Batch batch;
      Sample sample;
      lm.fill(std::vector{index}, batch);
      lm.data().sample(index, sample);
      expect_sound_segments(batch.segments, batch.positions, length);
      ASSERT_EQ(sample.tokens.size(), size_t(length));
      int64_t targets = 0;
      for (size_t t = 0; t < length; ++t) {
        const int32_t clean = sample.tokens[t];
        if (batch.targets[t] == -1) {
          ASSERT_EQ(batch.tokens[t], clean);
        } else {
          ASSERT_EQ(batch.targets[t], clean);
          ASSERT_GE(clean, 4) << "a special token is a target";
          ++targets;
        }
      }
      ASSERT_EQ(targets, batch.n_targets);
      ASSERT_LE(targets, lm.shape().most_targets);
      counts.insert(targets);
      sum += double(targets);
    }
    if (setting.rule == MaskingRule::bert && setting.unit != MaskingUnit::whole_word) {
      EXPECT_EQ(counts, (std::set<int64_t>{19}));  // round(19.2)
    } else if (setting.rule == MaskingRule::roberta && setting.unit != MaskingUnit::whole_word) {
      EXPECT_EQ(counts, (std::set<int64_t>{19, 20}));
      EXPECT_NEAR(sum / rows, 0.15 * length, three_sigma(0.4, rows));
    } else if (setting.rule == MaskingRule::bernoulli) {
      // Of some 126 tokens that are not special, alone or three at a time.
      const double unit = setting.unit == MaskingUnit::token ? 1 : 3;
      EXPECT_NEAR(sum / rows, 0.15 * (length - 2.8), three_sigma(std::sqrt(length * 0.15 * 0.85 * unit), rows) + 0.15);
    }
  }
}

TEST(MaskedLm, EightyTenTen) {
  for (const Setting& setting : settings) {
    SCOPED_TRACE(fmt::format("{} {}", setting.rule, setting.unit));
    const MaskedLm lm = masked_lm_objective(setting);
    double targets = 0, masks = 0, kept = 0;
    int32_t least = vocab_size, most = 0;
    Batch batch;
    for (uint64_t index = 0; index < 600; ++index) {
      lm.fill(std::vector{index}, batch);
      for (size_t t = 0; t < length; ++t) {
        if (batch.targets[t] == -1) continue;
        ++targets;
        if (batch.tokens[t] == 3)
          ++masks;
        else if (batch.tokens[t] == batch.targets[t])
          ++kept;
        else
          least = std::min(least, batch.tokens[t]), most = std::max(most, batch.tokens[t]);
      }
    }
    // All tokens of a span are alike, which leaves fewer independent decisions: spans have at most 30 tokens.
    const double decisions = setting.unit == MaskingUnit::span ? targets / 10 : targets;
    EXPECT_NEAR(masks / targets, 0.8, three_sigma(0.4, decisions));
    EXPECT_NEAR(kept / targets, 0.1, three_sigma(0.3, decisions) + 1e-3);
    EXPECT_GT(most, vocab_size - 30);
    EXPECT_LT(least, 30);
    if (setting.rule == MaskingRule::roberta) {
      EXPECT_GE(least, 4);
    }
  }
}

TEST(MaskedLm, WholeWordsAreMaskedWhole) {
  for (const MaskingRule rule : {MaskingRule::roberta, MaskingRule::bert, MaskingRule::bernoulli}) {
    const MaskedLm lm = masked_lm_objective({rule, MaskingUnit::whole_word});
    for (uint64_t index = 0; index < 200; ++index) {
      Batch batch;
      Sample sample;
      lm.fill(std::vector{index}, batch);
      lm.data().sample(index, sample);
      for (const TokenRange word : maskable(sample.tokens, plain_table(vocab_size, 3), true))
        for (int32_t t = word.begin; t < word.end(); ++t)
          ASSERT_EQ(batch.targets[size_t(t)] == -1, batch.targets[size_t(word.begin)] == -1);
    }
  }
}

// Alone in a long document, spans have 1 to 10 words, 3.8 on average as in the paper, cut by the count or by another.
TEST(MaskedLm, SpansAreRunsOfWholeWords) {
  std::vector<TokenRange> words;
  for (int32_t w = 0; w < 100000; ++w) words.push_back({3 * w, 3});
  Tokens order(words.size());
  std::iota(order.begin(), order.end(), 0);
  Draws draws(1, 2);
  draws.shuffle(std::span(order));
  const auto spans = take_spans(words, order, 9000, draws);
  EXPECT_EQ(positions_of(spans).size(), 9000u);
  double sum = 0;
  std::set<int32_t> lengths;
  for (const TokenRange span : spans) {
    EXPECT_EQ(span.begin % 3, 0);
    lengths.insert(span.length);
    sum += span.length / 3.0;
  }
  EXPECT_EQ(*lengths.rbegin(), 30);
  EXPECT_EQ(lengths.size(), 10u);
  EXPECT_NEAR(sum / double(spans.size()), 3.797, three_sigma(2.7, double(spans.size())) + 0.05);
}

TEST(MaskedLm, MasksAreAFunctionOfSeedAndSample) {
  for (const Setting& setting : settings) {
    expect_pure(masked_lm_objective(setting), {&Batch::tokens, &Batch::targets});
    Batch one, other;
    masked_lm_objective(setting, 1).fill(std::vector<uint64_t>{5}, one);
    masked_lm_objective(setting, 2).fill(std::vector<uint64_t>{5}, other);
    EXPECT_NE(one.targets, other.targets);
  }
}

// The same text in the next epoch is masked anew: that a token is a target in both is a matter of chance.
TEST(MaskedLm, EveryEpochIsMaskedAnew) {
  const std::vector<Tokens> one_document{Tokens(510, 7)};
  const MaskedLm lm(
      std::make_unique<Dataset>(std::vector<DatasetSource>{{"a", std::make_shared<MemorySource>(one_document)}},
                                Vocabulary{.size = 100, .eos_id = 2, .cls_id = 0, .sep_id = 2},
                                DatasetOptions{.seq_length = 512, .framing = Framing::enclosed, .pack = false}),
      {}, plain_table(100), true, 1);
  Batch epochs;
  std::vector<uint64_t> indices(100);
  std::iota(indices.begin(), indices.end(), 0);
  lm.fill(indices, epochs);
  double both = 0;
  for (size_t e = 0; e + 1 < 100; ++e)
    for (size_t t = 0; t < 512; ++t)
      both += epochs.targets[e * 512 + t] != -1 && epochs.targets[(e + 1) * 512 + t] != -1;
  EXPECT_NEAR(both / 99, 510 * 0.15 * 0.15, three_sigma(3.4, 99) + 0.1);
}

TEST(MaskedLm, DocumentMaskAndPadding) {
  Batch masked, open;
  masked_lm_objective(settings[0], 1, true, 20).fill(std::vector<uint64_t>{0, 1}, masked);
  masked_lm_objective(settings[0], 1, false, 20).fill(std::vector<uint64_t>{0, 1}, open);
  EXPECT_EQ(open.segments, (std::vector<Segment>{{0, length, 0, length}, {length, length, length, length}}));
  EXPECT_GT(masked.segments.size(), 10u);
  for (const Segment& segment : masked.segments) {
    EXPECT_EQ(masked.tokens[size_t(segment.q_start)], 0);                      // <s>
    EXPECT_EQ(masked.tokens[size_t(segment.q_start + segment.q_len) - 1], 2);  // </s>
  }
  EXPECT_EQ(masked.n_tokens, 2 * length);

  const std::vector<Tokens> short_document{{10, 11, 12}};
  const MaskedLm lm(
      std::make_unique<Dataset>(std::vector<DatasetSource>{{"a", std::make_shared<MemorySource>(short_document)}},
                                Vocabulary{.size = 100, .eos_id = 2, .cls_id = 0, .sep_id = 2},
                                DatasetOptions{.seq_length = 8, .framing = Framing::enclosed, .pack = false}),
      {.masking = MaskingRule::bert}, plain_table(100), true, 1);
  Batch padded;
  lm.fill(std::vector<uint64_t>{0}, padded);
  EXPECT_EQ(padded.n_tokens, 5);
  EXPECT_EQ(padded.n_targets, 1);
  EXPECT_EQ(padded.segments, (std::vector<Segment>{{0, 5, 0, 5}, {5, 3, 5, 3}}));
  EXPECT_EQ((Tokens{padded.tokens.begin() + 5, padded.tokens.end()}), (Tokens{1, 1, 1}));
  EXPECT_EQ((Tokens{padded.targets.begin() + 5, padded.targets.end()}), (Tokens{-1, -1, -1}));
}

TEST(MaskedLm, RefusesWhatItCannotDo) {
  TokenTable table = plain_table(2000);
  table.ids.mask.reset();
  EXPECT_NE(error_of([&] { MaskedLm(objective_data(16, Framing::enclosed), {}, table, true, 1); }).find("mask_token"),
            std::string::npos);
  const std::vector<Tokens> holds_mask{{10, 3, 12}};
  const MaskedLm lm(
      std::make_unique<Dataset>(std::vector<DatasetSource>{{"a", std::make_shared<MemorySource>(holds_mask)}},
                                Vocabulary{.size = 100, .eos_id = 2, .cls_id = 0, .sep_id = 2},
                                DatasetOptions{.seq_length = 8, .framing = Framing::enclosed}),
      {}, plain_table(100), true, 1);
  Batch batch;
  EXPECT_NE(error_of([&] { lm.fill(std::vector<uint64_t>{0}, batch); }).find("mask token (3)"), std::string::npos);
}

}  // namespace
}  // namespace mixtape::test
