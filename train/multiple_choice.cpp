#include "train/multiple_choice.h"

#include <algorithm>
#include <cmath>

#include "train/score.h"

namespace mixtape {
namespace {

// A context with one of its choices, as a model reads them.
struct Reading {
  size_t question = 0, choice = 0;
  std::vector<int32_t> context;
  const std::vector<int32_t>* tokens = nullptr;  // of the choice

  // A decoder reads all but the last token; after an encoder it reads its start token and then the choice.
  int64_t main_length(bool after_encoder) const {
    return int64_t(context.size()) + (after_encoder ? 0 : int64_t(tokens->size()) - 1);
  }
  int64_t decoder_length(bool after_encoder) const { return after_encoder ? int64_t(tokens->size()) : 0; }
};

bool encodes(const Engine& engine) { return engine.options().decoder_length > 0; }

void check_tokens(const Question& question, size_t number, int64_t vocabulary) {
  const auto check = [&](const std::vector<int32_t>& tokens) {
    for (const int32_t token : tokens)
      if (token < 0 || token >= vocabulary)
        throw DataError(
            "question {}: it has the token {}, but the model's are 0 to {}; was it made with another "
            "tokenizer?",
            number, token, vocabulary - 1);
  };
  check(question.context);
  for (const Choice& choice : question.choices) check(choice.tokens);
}

std::vector<Reading> readings_of(const Engine& engine, const std::vector<Question>& questions, const ChoiceStart& start,
                                 ChoiceResult& result) {
  const ModelSpec& spec = engine.model().spec();
  const int64_t limit = spec.position == Position::learned ? spec.max_positions : engine.options().row_length;
  std::vector<Reading> readings;
  for (size_t q = 0; q < questions.size(); ++q) {
    bool shortened = false;
    check_tokens(questions[q], q + 1, spec.vocab_size);
    for (size_t c = 0; c < questions[q].choices.size(); ++c) {
      Reading r{q, c, questions[q].context, &questions[q].choices[c].tokens};
      if (r.context.empty()) r.context.push_back(start.begin);
      const int64_t excess = r.main_length(encodes(engine)) - limit;
      if (excess >= int64_t(r.context.size()) || r.decoder_length(encodes(engine)) > limit)
        throw DataError("question {}: choice {} has {} tokens, more than the {} positions that the model has", q + 1,
                        c + 1, r.tokens->size(), limit);
      if (excess > 0) r.context.erase(r.context.begin(), r.context.begin() + excess);
      shortened |= excess > 0;
      readings.push_back(std::move(r));
    }
    result.shortened += shortened;
  }
  return readings;
}

// Rows of a batch, filled with one reading after another.
class Packing {
 public:
  explicit Packing(const Engine& engine)
      : encodes_(encodes(engine)),
        rows_(engine.options().rows),
        length_(engine.options().row_length),
        decoder_length_(engine.options().decoder_length),
        predicted_(encodes_ ? decoder_length_ : length_) {
    clear();
  }

  void clear() {
    owners_.clear();
    row_ = used_ = decoder_used_ = 0;
    batch_ = {.rows = int32_t(rows_), .row_length = int32_t(length_)};
    const auto main = size_t(rows_ * length_), decoder = size_t(rows_ * decoder_length_);
    batch_.tokens.assign(main, -1), batch_.positions.assign(main, 0);
    batch_.decoder.row_length = int32_t(decoder_length_);
    batch_.decoder.tokens.assign(decoder, -1), batch_.decoder.positions.assign(decoder, 0);
    batch_.targets.assign(size_t(rows_ * predicted_), -1);
  }

  // False if there is no room left for it.
  bool add(const Reading& r) {
    const int64_t main = r.main_length(encodes_), decoder = r.decoder_length(encodes_);
    if (used_ + main > length_ || decoder_used_ + decoder > decoder_length_) ++row_, used_ = decoder_used_ = 0;
    if (row_ == rows_) return false;
    const int64_t at = row_ * length_ + used_, decoder_at = row_ * decoder_length_ + decoder_used_;
    const auto& choice = *r.tokens;
    if (encodes_) {
      put(batch_.tokens, batch_.positions, batch_.segments, at, r.context);
      std::vector<int32_t> read{start_};
      read.insert(read.end(), choice.begin(), choice.end() - 1);
      put(batch_.decoder.tokens, batch_.decoder.positions, batch_.decoder.segments, decoder_at, read);
      batch_.decoder.cross_segments.push_back({int32_t(decoder_at), int32_t(decoder), int32_t(at), int32_t(main)});
    } else {
      std::vector<int32_t> read = r.context;
      read.insert(read.end(), choice.begin(), choice.end() - 1);
      put(batch_.tokens, batch_.positions, batch_.segments, at, read);
    }
    // The last token of the context predicts the first of the choice.
    const int64_t first = encodes_ ? decoder_at : at + int64_t(r.context.size()) - 1;
    std::copy(choice.begin(), choice.end(), batch_.targets.begin() + first);
    owners_.insert(owners_.end(), choice.size(), &r);
    used_ += main, decoder_used_ += decoder;
    return true;
  }

  void set_start(int32_t token) { start_ = token; }
  const Batch& batch() const { return batch_; }
  // Whose each target is, in the order of targets.
  const std::vector<const Reading*>& owners() const { return owners_; }

 private:
  static void put(std::vector<int32_t>& tokens, std::vector<int32_t>& positions, std::vector<Segment>& segments,
                  int64_t at, const std::vector<int32_t>& ids) {
    std::copy(ids.begin(), ids.end(), tokens.begin() + at);
    for (size_t i = 0; i < ids.size(); ++i) positions[size_t(at) + i] = int32_t(i);
    const auto begin = int32_t(at), length = int32_t(ids.size());
    segments.push_back({begin, length, begin, length});
  }

  bool encodes_;
  int64_t rows_, length_, decoder_length_, predicted_;
  int64_t row_ = 0, used_ = 0, decoder_used_ = 0;
  int32_t start_ = 0;
  Batch batch_;
  std::vector<const Reading*> owners_;
};

// The number of the largest, the first among equals.
template <class Value>
int32_t best_of(size_t n, Value&& value) {
  int32_t best = 0;
  for (size_t i = 1; i < n; ++i)
    if (value(i) > value(size_t(best))) best = int32_t(i);
  return best;
}

void judge(const std::vector<Question>& questions, const std::vector<std::vector<double>>& likelihoods,
           ChoiceResult& result) {
  int64_t answer_tokens = 0;
  result.has_bytes = !questions.empty();
  for (size_t q = 0; q < questions.size(); ++q) {
    const Question& question = questions[q];
    const std::vector<double>& sums = likelihoods[q];
    const auto& choices = question.choices;
    const auto right = [&](auto&& value) { return best_of(choices.size(), value) == question.answer; };
    ++result.questions;
    result.right += right([&](size_t c) { return sums[c]; });
    result.right_by_token += right([&](size_t c) { return sums[c] / double(choices[c].tokens.size()); });
    const bool bytes = std::ranges::all_of(choices, [](const Choice& c) { return c.bytes > 0; });
    result.has_bytes &= bytes;
    if (bytes) result.right_by_byte += right([&](size_t c) { return sums[c] / double(choices[c].bytes); });
    const auto answer = size_t(question.answer);
    result.answer_loss -= sums[answer];
    answer_tokens += int64_t(choices[answer].tokens.size());
  }
  if (answer_tokens > 0) result.answer_loss /= double(answer_tokens);
}

}  // namespace

ChoiceShape choice_shape(const std::vector<Question>& questions, bool after_encoder, int64_t limit) {
  // Rows of some length, so that sequences of many lengths fill them.
  constexpr int64_t least = 256;
  ChoiceShape shape{.length = least, .decoder_length = after_encoder ? least : 0};
  for (const Question& q : questions)
    for (const Choice& c : q.choices) {
      const Reading r{.context = q.context, .tokens = &c.tokens};
      const auto at_most = [&](int64_t n) { return limit > 0 ? std::min(n, limit) : n; };
      const int64_t begins = q.context.empty() ? 1 : 0;
      shape.length = std::max(shape.length, at_most(r.main_length(after_encoder) + begins));
      shape.decoder_length = std::max(shape.decoder_length, at_most(r.decoder_length(after_encoder)));
    }
  return shape;
}

ChoiceResult answer(Engine& engine, const std::vector<Question>& questions, const ChoiceStart& start,
                    const std::function<void(int64_t)>& progress) {
  ChoiceResult result;
  const std::vector<Reading> readings = readings_of(engine, questions, start, result);
  std::vector<std::vector<double>> likelihoods;
  for (const Question& q : questions) likelihoods.emplace_back(q.choices.size());

  Packing packing(engine);
  packing.set_start(start.decoder_start);
  const auto flush = [&] {
    engine.load(packing.batch());
    const std::vector<TargetScore> scores = score_targets(engine, packing.batch().targets);
    for (size_t i = 0; i < scores.size(); ++i) {
      const Reading& of = *packing.owners()[i];
      likelihoods[of.question][of.choice] += scores[i].log_likelihood;
    }
    packing.clear();
  };
  for (size_t i = 0; i < readings.size(); ++i) {
    if (packing.add(readings[i])) continue;
    flush();
    if (progress) progress(int64_t(readings[i].question));
    if (!packing.add(readings[i])) throw Error("multiple choice: a sequence of more tokens than a row has");
  }
  if (!packing.owners().empty()) flush();
  judge(questions, likelihoods, result);
  return result;
}

void plan_answers(Engine& planning) { score_targets(planning, {}); }

}  // namespace mixtape
