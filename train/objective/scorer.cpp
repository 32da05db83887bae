#include "train/objective/scorer.h"

#include <algorithm>

namespace mixtape {
namespace {

struct Counts {
  int64_t right = 0, predicted = 0, wanted = 0;
  bool occurs() const { return predicted + wanted > 0; }
  // 2 P R / (P + R), and 0 where that is 0 / 0.
  double f1() const { return occurs() ? 2 * double(right) / double(predicted + wanted) : 0; }
};

double share(int64_t part, int64_t whole) { return whole > 0 ? double(part) / double(whole) : 0; }

// The segments of the stack that predicts: its sequences, padding among them, which has no targets.
const std::vector<Segment>& sequences_of(const Batch& batch) {
  return batch.decoder.row_length > 0 ? batch.decoder.segments : batch.segments;
}

// visit(targets, predictions) for each sequence that has targets.
template <class Visit>
void for_each_sequence(const Batch& batch, std::span<const int32_t> predictions, Visit&& visit) {
  size_t next = 0;
  std::vector<int32_t> targets;
  for (const Segment& s : sequences_of(batch)) {
    targets.clear();
    for (int32_t t = s.q_start; t < s.q_start + s.q_len; ++t)
      if (batch.targets[size_t(t)] >= 0) targets.push_back(batch.targets[size_t(t)]);
    if (targets.empty()) continue;
    visit(std::span<const int32_t>(targets), predictions.subspan(next, targets.size()));
    next += targets.size();
  }
}

// A kind (PER of B-PER) by its number, and whether the label begins an entity; -1 is no entity.
struct EntityLabel {
  int kind = -1;
  bool begins = false;
};

struct Entity {
  int kind;
  size_t begin, end;
  auto operator<=>(const Entity&) const = default;
};

std::vector<Entity> entities_of(std::span<const int32_t> labels, const std::vector<EntityLabel>& meaning) {
  std::vector<Entity> entities;
  int open = -1;
  for (size_t i = 0; i < labels.size(); ++i) {
    const EntityLabel label = meaning[size_t(labels[i])];
    if (label.kind >= 0 && (label.begins || label.kind != open)) entities.push_back({label.kind, i, i});
    if (label.kind >= 0) entities.back().end = i + 1;
    open = label.kind;
  }
  return entities;
}

// Empty unless all labels are O, B-x and I-x.
std::vector<EntityLabel> entity_labels(const std::vector<std::string>& labels) {
  std::vector<EntityLabel> meaning;
  std::vector<std::string> kinds;
  for (const std::string& label : labels) {
    if (label == "O") {
      meaning.push_back({});
      continue;
    }
    if (!label.starts_with("B-") && !label.starts_with("I-")) return {};
    const std::string kind = label.substr(2);
    const auto found = std::find(kinds.begin(), kinds.end(), kind);
    meaning.push_back({int(found - kinds.begin()), label[0] == 'B'});
    if (found == kinds.end()) kinds.push_back(kind);
  }
  return meaning;
}

class LabelScorer final : public Scorer {
 public:
  LabelScorer(const std::vector<std::string>& labels, bool tagging) : counts_(labels.size()) {
    if (!tagging) return;
    entity_labels_ = entity_labels(labels);
    const auto outside = std::find(labels.begin(), labels.end(), "O");
    if (outside != labels.end()) outside_ = int32_t(outside - labels.begin());
  }

  void add(const Batch& batch, std::span<const int32_t> predictions) override {
    for_each_sequence(batch, predictions, [&](std::span<const int32_t> targets, std::span<const int32_t> predicted) {
      for (size_t i = 0; i < targets.size(); ++i) {
        ++counts_[size_t(targets[i])].wanted;
        ++counts_[size_t(predicted[i])].predicted;
        if (targets[i] == predicted[i]) ++counts_[size_t(targets[i])].right;
      }
      if (entity_labels_.empty()) return;
      const auto wanted = entities_of(targets, entity_labels_), found = entities_of(predicted, entity_labels_);
      entities_.wanted += int64_t(wanted.size());
      entities_.predicted += int64_t(found.size());
      for (const Entity& entity : found)
        entities_.right += std::find(wanted.begin(), wanted.end(), entity) != wanted.end();
    });
  }

  std::vector<Score> scores() const override {
    Counts all, inside;
    double f1 = 0;
    int64_t occurring = 0;
    for (size_t label = 0; label < counts_.size(); ++label) {
      const Counts& c = counts_[label];
      for (Counts* sum : {&all, int32_t(label) == outside_ ? nullptr : &inside})
        if (sum) sum->right += c.right, sum->predicted += c.predicted, sum->wanted += c.wanted;
      f1 += c.f1();
      occurring += c.occurs();
    }
    std::vector<Score> list{{"accuracy", share(all.right, all.wanted)},
                            {"macro_f1", occurring > 0 ? f1 / double(occurring) : 0},
                            {"micro_f1", inside.f1()}};
    if (!entity_labels_.empty()) list.push_back({"entity_f1", entities_.f1()});
    return list;
  }

 private:
  std::vector<Counts> counts_;
  std::vector<EntityLabel> entity_labels_;
  Counts entities_;
  int32_t outside_ = -1;
};

class TextScorer final : public Scorer {
 public:
  void add(const Batch& batch, std::span<const int32_t> predictions) override {
    for_each_sequence(batch, predictions, [&](std::span<const int32_t> targets, std::span<const int32_t> predicted) {
      int64_t right = 0;
      for (size_t i = 0; i < targets.size(); ++i) right += targets[i] == predicted[i];
      tokens_ += int64_t(targets.size());
      right_tokens_ += right;
      ++texts_;
      right_texts_ += right == int64_t(targets.size());
    });
  }

  std::vector<Score> scores() const override {
    return {{"exact_match", share(right_texts_, texts_)}, {"token_accuracy", share(right_tokens_, tokens_)}};
  }

 private:
  int64_t texts_ = 0, right_texts_ = 0, tokens_ = 0, right_tokens_ = 0;
};

}  // namespace

std::unique_ptr<Scorer> label_scorer(const std::vector<std::string>& labels, bool tagging) {
  return std::make_unique<LabelScorer>(labels, tagging);
}

std::unique_ptr<Scorer> text_scorer() { return std::make_unique<TextScorer>(); }

}  // namespace mixtape
