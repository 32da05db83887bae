// How good predictions are, in the measures of the task: counted while a model is evaluated.
//
// What is predicted is the likeliest label or token of each target. That also decides whether a model would write a
// whole text as it should: if the likeliest token is right after every right beginning, then greedy generation gives
// exactly that text, its end included.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "train/objective/batch.h"

namespace mixtape {

struct Score {
  std::string name;
  double value = 0;  // from 0 to 1
  bool operator==(const Score&) const = default;
};

class Scorer {
 public:
  virtual ~Scorer() = default;
  // `predictions`: one for each target of the batch that is not -1, in order.
  virtual void add(const Batch& batch, std::span<const int32_t> predictions) = 0;
  virtual std::vector<Score> scores() const = 0;
};

// One label for each sequence: accuracy, macro_f1 (the mean over the labels that occur or were predicted), micro_f1.
//
// One for each token (`tagging`): the same, where micro_f1 leaves the label O out; and where the others are B-x and
// I-x, entity_f1: micro F1 of whole entities. As in scikit-learn and in seqeval's default mode: an entity begins at B,
// at another kind, and at I after O.
std::unique_ptr<Scorer> label_scorer(const std::vector<std::string>& labels, bool tagging);

// Of texts: exact_match, the share that is predicted token by token, and token_accuracy.
std::unique_ptr<Scorer> text_scorer();

}  // namespace mixtape
