#include <fstream>
#include <nlohmann/json.hpp>
#include <numeric>

#include "tests/data/support.h"
#include "train/objective/causal_lm.h"
#include "train/objective/loader.h"

namespace mixtape::test {
namespace {

using Tokens = std::vector<int32_t>;

std::unique_ptr<Dataset> small_dataset(std::optional<double> max_epochs = std::nullopt) {
  std::vector<Tokens> documents;
  for (int d = 0; d < 50; ++d) documents.emplace_back(size_t(1 + d % 9), d + 1);
  return std::make_unique<Dataset>(
      std::vector<DatasetSource>{{"a", std::make_shared<MemorySource>(documents), 1, max_epochs}},
      Vocabulary{.size = 100, .eos_id = 0}, DatasetOptions{.seq_length = 8, .seed = 3});
}

TEST(CausalLm, GoldenWindows) {
  std::ifstream in(std::string(MIXTAPE_GOLDEN) + "/objectives/causal.json");
  const auto golden = nlohmann::json::parse(in);
  for (const auto& window : golden.at("windows")) {
    Sample sample{.tokens = window.at("text").get<Tokens>()};
    const int32_t eod = window.at("eod");
    for (size_t t = 1; t < sample.tokens.size(); ++t)
      if (sample.tokens[t - 1] == eod) sample.document_starts.push_back(int32_t(t));
    const auto length = int32_t(sample.tokens.size()) - 1;
    for (const bool document_mask : {false, true}) {
      Batch batch;
      CausalLm::append_row(sample, length, document_mask, eod, batch);
      EXPECT_EQ(batch.tokens, window.at("inputs").get<Tokens>());
      const auto labels = window.at("labels").get<Tokens>();
      const auto mask = window.at(document_mask ? "loss_mask_eod" : "loss_mask_plain").get<Tokens>();
      for (size_t t = 0; t < labels.size(); ++t) EXPECT_EQ(batch.targets[t], mask[t] ? labels[t] : -1);
      EXPECT_EQ(batch.n_targets, std::accumulate(mask.begin(), mask.end(), 0));
      EXPECT_EQ(batch.n_tokens, length);
      std::vector<Segment> segments{{0, length, 0, length}};
      Tokens positions(labels.size());
      std::iota(positions.begin(), positions.end(), 0);
      if (document_mask) {
        segments.clear();
        const auto bounds = window.at("cu_seqlens").get<Tokens>();
        for (size_t s = 0; s + 1 < bounds.size(); ++s)
          segments.push_back({bounds[s], bounds[s + 1] - bounds[s], bounds[s], bounds[s + 1] - bounds[s]});
        positions = window.at("positions_reset").get<Tokens>();
      }
      EXPECT_EQ(batch.segments, segments);
      EXPECT_EQ(batch.positions, positions);
    }
  }
}

// With the document mask, the token that ends a document is a target of it and opens the next one.
TEST(CausalLm, EveryTokenOfADocumentIsPredictedOnceInItsOwnSegment) {
  const CausalLm objective(small_dataset(), true);
  Batch batch;
  std::vector<uint64_t> samples(20);
  std::iota(samples.begin(), samples.end(), 0);
  objective.fill(samples, batch);
  EXPECT_EQ(batch.n_targets, 160);
  for (const Segment& segment : batch.segments) {
    if (segment.q_start % 8 != 0) {
      EXPECT_EQ(batch.tokens[size_t(segment.q_start)], 0);
    }
    for (int32_t i = 0; i < segment.q_len; ++i) {
      const auto t = size_t(segment.q_start + i);
      EXPECT_EQ(batch.positions[t], i);
      if (i > 0) {
        EXPECT_EQ(batch.tokens[t], batch.targets[t - 1]);
        EXPECT_NE(batch.tokens[t], 0);
      }
    }
  }
}

// A tokenizer with a bos of its own, as LLaMA's: bos opens the document and is no target.
TEST(CausalLm, ADistinctBosOpensDocuments) {
  Sample sample{.tokens = {5, 6, 2, 1, 7, 2, 1}, .document_starts = {3, 6}};
  Batch batch;
  CausalLm::append_row(sample, 6, true, 2, batch);
  EXPECT_EQ(batch.tokens, (Tokens{5, 6, 2, 1, 7, 2}));
  EXPECT_EQ(batch.targets, (Tokens{6, 2, -1, 7, 2, -1}));
  EXPECT_EQ(batch.segments, (std::vector<Segment>{{0, 3, 0, 3}, {3, 3, 3, 3}}));
  EXPECT_EQ(batch.n_targets, 4);
}

TEST(CausalLm, PaddingIsASegmentWithoutTargets) {
  Batch batch;
  CausalLm::append_row({.tokens = {5, 6, 7, 0}}, 6, true, 0, batch);
  CausalLm::append_row({.tokens = {8, 0}}, 6, true, 0, batch);
  EXPECT_EQ(batch.tokens, (Tokens{5, 6, 7, 0, 0, 0, 8, 0, 0, 0, 0, 0}));
  EXPECT_EQ(batch.targets, (Tokens{6, 7, 0, -1, -1, -1, 0, -1, -1, -1, -1, -1}));
  EXPECT_EQ(batch.positions, (Tokens{0, 1, 2, 0, 1, 2, 0, 0, 1, 2, 3, 4}));
  EXPECT_EQ(batch.segments, (std::vector<Segment>{{0, 3, 0, 3}, {3, 3, 3, 3}, {6, 1, 6, 1}, {7, 5, 7, 5}}));
  EXPECT_EQ(batch.n_tokens, 4);
  EXPECT_EQ(batch.n_targets, 4);
}

// Each token in exactly one segment, and no segment over the end of a row.
TEST(CausalLm, SegmentsCoverTheBatch) {
  for (const bool document_mask : {false, true}) {
    Batch batch;
    CausalLm(small_dataset(), document_mask).fill(std::vector<uint64_t>{4, 5, 99}, batch);
    ASSERT_EQ(batch.rows, 3);
    int32_t next = 0;
    for (const Segment& segment : batch.segments) {
      EXPECT_EQ(segment.q_start, next);
      EXPECT_GT(segment.q_len, 0);
      EXPECT_EQ(segment.q_start / 8, (segment.q_start + segment.q_len - 1) / 8);
      next += segment.q_len;
    }
    EXPECT_EQ(next, 24);
    EXPECT_EQ(batch.positions.size(), 24u);
    EXPECT_EQ(batch.n_targets, 24 - std::count(batch.targets.begin(), batch.targets.end(), -1));
    EXPECT_EQ(batch.sample_ids, (std::vector<uint64_t>{4, 5, 99}));
    if (!document_mask) {
      EXPECT_EQ(batch.segments.size(), 3u);
    }
  }
}

TEST(Loader, GivesTheSamplesInOrderWhateverDepthRankAndStart) {
  const CausalLm objective(small_dataset(), true);
  for (const int depth : {1, 4}) {
    for (const int world : {1, 2}) {
      for (int rank = 0; rank < world; ++rank) {
        Loader loader(objective, {.micro_batch_size = 2,
                                  .global_batch_size = 8,
                                  .first_sample = 24,
                                  .rank = rank,
                                  .world = world,
                                  .depth = depth});
        for (uint64_t step = 0; step < 20; ++step) {
          const GlobalBatch& batch = loader.next();
          uint64_t sample = 24 + step * 8 + uint64_t(rank) * 8 / uint64_t(world);
          EXPECT_EQ(batch.first_sample, 24 + step * 8);
          ASSERT_EQ(batch.micro_batches.size(), size_t(4 / world));
          int64_t targets = 0;
          for (const Batch& micro : batch.micro_batches) {
            Batch expected;
            objective.fill(std::vector<uint64_t>{sample, sample + 1}, expected);
            ASSERT_EQ(micro.tokens, expected.tokens);
            ASSERT_EQ(micro.targets, expected.targets);
            targets += expected.n_targets;
            sample += 2;
          }
          EXPECT_EQ(batch.n_targets, targets);
        }
      }
    }
  }
}

// 8, 6 and 2 samples: 4, 3 and 1 micro-batches for two ranks.
TEST(Loader, RanksTakeTurns) {
  const CausalLm objective(small_dataset(), true);
  const auto size = [](uint64_t sample) { return sample == 0 ? 8 : sample == 8 ? 6 : 2; };
  const std::vector<std::vector<uint64_t>> firsts[] = {{{0, 4}, {8, 12}, {14}}, {{2, 6}, {10}, {}}};
  for (int rank = 0; rank < 2; ++rank) {
    Loader loader(objective, {.micro_batch_size = 2,
                              .global_batch_size = 8,
                              .batch_size_at = size,
                              .rank = rank,
                              .world = 2,
                              .in_turns = true});
    for (const std::vector<uint64_t>& expected : firsts[rank]) {
      const GlobalBatch& batch = loader.next();
      EXPECT_EQ(batch.first_micro_batch, uint64_t(rank));
      EXPECT_EQ(batch.stride, 2);
      std::vector<uint64_t> found;
      for (const Batch& micro : batch.micro_batches) found.push_back(micro.sample_ids[0]);
      EXPECT_EQ(found, expected);
    }
  }
}

TEST(Loader, TakesAsManyAsTheBatchHas) {
  const CausalLm objective(small_dataset(), true);
  const auto size = [](uint64_t sample) { return sample < 10 ? 2 : sample < 20 ? 4 : 8; };
  Loader loader(objective, {.micro_batch_size = 2, .global_batch_size = 8, .batch_size_at = size, .first_sample = 4});
  uint64_t sample = 4;
  for (const size_t micro_batches : {1, 1, 1, 2, 2, 2, 4, 4}) {
    const GlobalBatch& batch = loader.next();
    EXPECT_EQ(batch.first_sample, sample);
    EXPECT_EQ(batch.micro_batches.size(), micro_batches);
    for (const Batch& micro : batch.micro_batches) {
      EXPECT_EQ(micro.sample_ids, (std::vector<uint64_t>{sample, sample + 1}));
      sample += 2;
    }
  }
}

TEST(Loader, ErrorsArriveAtTheStepTheyConcern) {
  const CausalLm objective(small_dataset(1.0), true);
  const uint64_t steps = *objective.size() / 4;
  Loader loader(objective, {.micro_batch_size = 4, .global_batch_size = 4, .depth = 2});
  for (uint64_t step = 0; step < steps; ++step) EXPECT_NO_THROW(loader.next()) << step;
  EXPECT_THROW(loader.next(), DataError);
  EXPECT_THROW(loader.next(), DataError);
}

TEST(Loader, StopsAtOnceAndRefusesSizesThatDoNotDivide) {
  const CausalLm objective(small_dataset(), true);
  for (int i = 0; i < 20; ++i) Loader(objective, {.micro_batch_size = 4, .global_batch_size = 8});
  EXPECT_THROW(Loader(objective, {.micro_batch_size = 3, .global_batch_size = 8}), ConfigError);
  EXPECT_THROW(Loader(objective, {.micro_batch_size = 4, .global_batch_size = 4, .world = 2}), ConfigError);
}

}  // namespace
}  // namespace mixtape::test
