#include "train/objective/masked_lm.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/base/error.h"

namespace mixtape {
namespace {

constexpr int32_t longest_span = 10;    // words
constexpr double span_stop_rate = 0.2;  // p of the geometric distribution

// 1 to longest_span: p (1 - p)^(k - 1), normalised.
int32_t span_words(Draws& draws) {
  static constexpr double keep = 1 - span_stop_rate;
  const double reach = 1 - std::pow(keep, longest_span);
  const double u = draws.uniform() * reach;
  return std::clamp(1 + int32_t(std::log1p(-u) / std::log(keep)), 1, longest_span);
}

void in_text_order(std::vector<TokenRange>& ranges) {
  std::sort(ranges.begin(), ranges.end(), [](TokenRange a, TokenRange b) { return a.begin < b.begin; });
}

std::vector<TokenRange> choose(std::span<const int32_t> tokens, const ObjectiveConfig& config, const TokenTable& table,
                               Draws& draws) {
  const auto length = int32_t(tokens.size());
  std::vector<TokenRange> words = maskable(tokens, table, config.masking_unit != MaskingUnit::token);
  if (config.masking == MaskingRule::bernoulli) {
    int32_t room = most_predictions(length, config);
    std::erase_if(words, [&](TokenRange word) {
      if (draws.uniform() >= config.mask_rate || word.length > room) return true;
      room -= word.length;
      return false;
    });
    return words;
  }
  const int32_t count = config.masking == MaskingRule::bert
                            ? bert_count(length, config.mask_rate, config.max_predictions)
                            : roberta_count(length, config.mask_rate, draws.uniform());
  std::vector<int32_t> order(words.size());
  std::iota(order.begin(), order.end(), 0);
  draws.shuffle(std::span(order));
  return config.masking_unit == MaskingUnit::span ? take_spans(words, order, count, draws)
                                                  : take_words(words, order, count);
}

}  // namespace

int32_t bert_count(int32_t length, double rate, std::optional<int64_t> max_predictions) {
  const auto wanted = std::max<int64_t>(1, int64_t(std::nearbyint(length * rate)));
  return int32_t(std::min(wanted, max_predictions.value_or(wanted)));
}

int32_t roberta_count(int32_t length, double rate, double draw) { return int32_t(length * rate + draw); }

int32_t most_predictions(int32_t length, const ObjectiveConfig& config) {
  const double rate = config.mask_rate, mean = length * rate;
  switch (config.masking) {
    case MaskingRule::bert:
      return std::min(bert_count(length, rate, config.max_predictions), length);
    case MaskingRule::roberta:
      return std::min(int32_t(mean) + 1, length);
    default: {
      // The variance of words is that of tokens times the length of a word.
      const double deviations = config.masking_unit == MaskingUnit::token ? 6 : 12;
      return int32_t(std::min<double>(length, std::ceil(mean + deviations * std::sqrt(mean * (1 - rate)))));
    }
  }
}

std::vector<TokenRange> maskable(std::span<const int32_t> tokens, const TokenTable& table, bool whole_words) {
  std::vector<TokenRange> words;
  bool inside = false;
  for (size_t t = 0; t < tokens.size(); ++t) {
    const int32_t token = tokens[t];
    if (table.special(token)) {
      inside = false;
    } else if (whole_words && inside && !table.begins_word[size_t(token)]) {
      ++words.back().length;
    } else {
      words.push_back({int32_t(t), 1});
      inside = true;
    }
  }
  return words;
}

std::vector<TokenRange> take_words(std::span<const TokenRange> words, std::span<const int32_t> order, int32_t count) {
  std::vector<TokenRange> taken;
  for (const int32_t index : order) {
    if (count == 0) break;
    const TokenRange word = words[size_t(index)];
    if (word.length > count) continue;
    count -= word.length;
    taken.push_back(word);
  }
  in_text_order(taken);
  return taken;
}

std::vector<TokenRange> take_spans(std::span<const TokenRange> words, std::span<const int32_t> order, int32_t count,
                                   Draws& draws) {
  std::vector<TokenRange> taken;
  std::vector<uint8_t> used(words.size());
  for (const int32_t first : order) {
    if (count == 0) break;
    if (used[size_t(first)]) continue;
    const int32_t most = span_words(draws);
    TokenRange run{words[size_t(first)].begin, 0};
    for (size_t w = size_t(first); w < words.size() && int32_t(w) - first < most && count > 0; ++w) {
      if (used[w] || words[w].begin != run.end()) break;
      const int32_t length = std::min(words[w].length, count);
      used[w] = 1;
      run.length += length;
      count -= length;
    }
    taken.push_back(run);
  }
  in_text_order(taken);
  return taken;
}

MaskedLm::MaskedLm(std::unique_ptr<const Dataset> data, const ObjectiveConfig& config, TokenTable table,
                   bool document_mask, uint64_t seed)
    : TextObjective(std::move(data)),
      config_(config),
      table_(std::move(table)),
      document_mask_(document_mask),
      seed_(seed) {
  if (!table_.ids.mask)
    throw ConfigError(
        "objective.name: masked_lm needs a mask token, which the tokenizer lacks; add [MASK] or <mask> to it, or name "
        "its mask_token in tokenizer_config.json");
}

RowShape MaskedLm::shape() const {
  const int32_t length = data().seq_length();
  return {.length = length, .most_targets = most_predictions(length, config_)};
}

void MaskedLm::append(const Sample& sample, Batch& batch) const {
  std::vector<int32_t> tokens = sample.tokens, targets(tokens.size(), -1);
  const int32_t mask = *table_.ids.mask;
  if (std::find(tokens.begin(), tokens.end(), mask) != tokens.end())
    throw DataError("sample {}: the data holds the mask token ({}), which would be shown without being a target",
                    sample.index, mask);
  Draws draws(seed_, sample.index);
  const auto random_token = [&] {
    if (config_.masking != MaskingRule::roberta) return int32_t(draws.below(uint32_t(table_.vocab_size)));
    return table_.ordinary[draws.below(uint32_t(table_.ordinary.size()))];
  };
  for (const TokenRange chosen : choose(tokens, config_, table_, draws)) {
    double u = draws.uniform();
    for (int32_t t = chosen.begin; t < chosen.end(); ++t) {
      if (t > chosen.begin && config_.masking_unit != MaskingUnit::span) u = draws.uniform();
      targets[size_t(t)] = tokens[size_t(t)];
      ++batch.n_targets;
      if (u < config_.mask_token_share) {
        tokens[size_t(t)] = mask;
      } else if (u < config_.mask_token_share + config_.random_token_share) {
        tokens[size_t(t)] = random_token();
      }
    }
  }
  const int32_t length = data().seq_length();
  std::span<const int32_t> starts;
  if (document_mask_) starts = sample.document_starts;
  batch.n_tokens += int64_t(tokens.size());
  append_padded(tokens, length, table_.ids.pad.value_or(*table_.ids.sep), batch.tokens);
  append_padded(targets, length, -1, batch.targets);
  append_segments(documents_of_row(starts, int32_t(tokens.size())), length, batch.positions, batch.segments);
}

}  // namespace mixtape
