#include "train/objective/scorer.h"

#include <gtest/gtest.h>

#include <cmath>

namespace mixtape {
namespace {

// One sequence a list of targets; -1 where there is none. The rest of the row is padding.
Batch batch_of(const std::vector<std::vector<int32_t>>& sequences) {
  Batch batch;
  for (const auto& sequence : sequences) {
    const auto start = int32_t(batch.targets.size()), length = int32_t(sequence.size());
    batch.segments.push_back({start, length, start, length});
    batch.targets.insert(batch.targets.end(), sequence.begin(), sequence.end());
  }
  batch.segments.push_back({int32_t(batch.targets.size()), 2, int32_t(batch.targets.size()), 2});
  batch.targets.resize(batch.targets.size() + 2, -1);
  return batch;
}

double score(const Scorer& scorer, const std::string& name) {
  for (const Score& s : scorer.scores())
    if (s.name == name) return s.value;
  return NAN;
}

// sklearn: f1_score([0,0,1,2,2,2], [0,1,1,2,2,0], average=...) is 0.6556 (macro) and 0.6667 (micro); label 3 is in
// neither and does not count.
TEST(Scorer, LabelsOfSequencesAsInScikitLearn) {
  const auto scorer = label_scorer({"a", "b", "c", "d"}, false);
  scorer->add(batch_of({{0, -1, -1}, {0, -1}, {1}}), std::vector<int32_t>{0, 1, 1});
  scorer->add(batch_of({{2, -1}, {2}, {2}}), std::vector<int32_t>{2, 2, 0});
  EXPECT_NEAR(score(*scorer, "accuracy"), 4.0 / 6, 1e-12);
  EXPECT_NEAR(score(*scorer, "macro_f1"), (0.5 + 2.0 / 3 + 0.8) / 3, 1e-12);
  EXPECT_NEAR(score(*scorer, "micro_f1"), 4.0 / 6, 1e-12);
  EXPECT_TRUE(std::isnan(score(*scorer, "entity_f1")));
}

// A label that is predicted but never right counts with an F1 of 0.
TEST(Scorer, MacroF1CountsLabelsThatWereOnlyPredicted) {
  const auto scorer = label_scorer({"a", "b", "c"}, false);
  scorer->add(batch_of({{0}, {0}}), std::vector<int32_t>{0, 1});
  EXPECT_NEAR(score(*scorer, "macro_f1"), (2.0 / 3 + 0) / 2, 1e-12);
}

TEST(Scorer, TagsLeaveOutsideOutOfMicroF1AndCountWholeEntities) {
  const std::vector<std::string> labels{"O", "B-PER", "I-PER", "B-LOC", "I-LOC"};
  const auto scorer = label_scorer(labels, true);
  // Wanted: PER 0-2, LOC 3-4; found: PER 0-2, LOC 4-5. -1: further tokens of a word.
  scorer->add(batch_of({{1, -1, 2, 0, 3, 0}}), std::vector<int32_t>{1, 2, 0, 0, 3});
  EXPECT_NEAR(score(*scorer, "accuracy"), 3.0 / 5, 1e-12);
  EXPECT_NEAR(score(*scorer, "micro_f1"), 2.0 * 2 / (3 + 3), 1e-12);
  EXPECT_NEAR(score(*scorer, "entity_f1"), 2.0 * 1 / (2 + 2), 1e-12);
}

// seqeval: I after O or after another kind begins an entity, B after the same kind too; the end of a sequence ends one.
TEST(Scorer, EntitiesBeginAsInSeqeval) {
  const std::vector<std::string> labels{"O", "B-A", "I-A", "B-B", "I-B"};
  const auto f1 = [&](std::vector<std::vector<int32_t>> wanted, std::vector<int32_t> found) {
    const auto scorer = label_scorer(labels, true);
    scorer->add(batch_of(wanted), found);
    return score(*scorer, "entity_f1");
  };
  EXPECT_EQ(f1({{1, 2, 0}}, {2, 2, 0}), 1);  // I-A I-A is the same entity as B-A I-A
  EXPECT_EQ(f1({{1, 4}}, {1, 3}), 1);        // I-B after A begins one
  EXPECT_EQ(f1({{1, 1}}, {1, 2}), 0);        // two entities are not one of two words
  EXPECT_EQ(f1({{1}, {2}}, {1, 1}), 1);      // none runs on into the next sequence
  EXPECT_TRUE(std::isnan([&] {
    const auto scorer = label_scorer({"NOUN", "VERB"}, true);
    return score(*scorer, "entity_f1");
  }()));
}

TEST(Scorer, TextsMatchWholeOrNot) {
  const auto scorer = text_scorer();
  scorer->add(batch_of({{-1, 5, 6}, {7, 8}}), std::vector<int32_t>{5, 6, 7, 9});
  scorer->add(batch_of({{5}}), std::vector<int32_t>{5});
  EXPECT_NEAR(score(*scorer, "exact_match"), 2.0 / 3, 1e-12);
  EXPECT_NEAR(score(*scorer, "token_accuracy"), 4.0 / 5, 1e-12);
}

// After an encoder it is the decoder's segments that the targets lie in.
TEST(Scorer, TextsOfADecoder) {
  Batch batch;
  batch.segments = {{0, 9, 0, 9}};
  batch.decoder.row_length = 4;
  batch.decoder.segments = {{0, 2, 0, 2}, {2, 2, 2, 2}};
  batch.targets = {1, 2, 3, 2};
  const auto scorer = text_scorer();
  scorer->add(batch, std::vector<int32_t>{1, 2, 4, 2});
  EXPECT_NEAR(score(*scorer, "exact_match"), 0.5, 1e-12);
}

}  // namespace
}  // namespace mixtape
