#include "train/cli/fill_mask.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "train/forward.h"

namespace mixtape {
namespace {

struct Candidate {
  int32_t token;
  double probability;
};

std::vector<Candidate> likeliest(std::span<const float> logits, size_t count) {
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  count = std::min(count, order.size());
  std::partial_sort(order.begin(), order.begin() + int64_t(count), order.end(), [&](int32_t a, int32_t b) {
    return logits[size_t(a)] != logits[size_t(b)] ? logits[size_t(a)] > logits[size_t(b)] : a < b;
  });
  const double largest = logits[size_t(order[0])];
  double sum = 0;
  for (const float z : logits) sum += std::exp(double(z) - largest);
  std::vector<Candidate> candidates;
  for (size_t i = 0; i < count; ++i)
    candidates.push_back({order[i], std::exp(double(logits[size_t(order[i])]) - largest) / sum});
  return candidates;
}

std::vector<int32_t> masked_ids(const Tokenizer& tokenizer, std::string text, const std::string& model) {
  const auto mask = tokenizer.special_tokens().mask;
  if (!mask) throw ConfigError("generate: {} has a tokenizer without a mask token, which --fill-mask needs", model);
  const std::string own = tokenizer.token_text(*mask), usual = "[MASK]";
  for (size_t at = text.find(usual); own != usual && at != text.npos; at = text.find(usual, at + own.size()))
    text.replace(at, usual.size(), own);
  // Where words carry the blank before them, one that stands before a mask is a part of the hidden word.
  if (tokenizer.encode(" " + own).size() > 1)
    for (size_t at = text.find(" " + own); at != text.npos; at = text.find(" " + own, at)) text.erase(at, 1);
  std::vector<int32_t> ids = tokenizer.encode(text, {.parse_special = true, .add_special = true});
  if (std::ranges::find(ids, *mask) == ids.end()) throw ConfigError("generate: --fill-mask: the text has no {}", own);
  return ids;
}

Batch one_row(const std::vector<int32_t>& ids) {
  const auto length = int32_t(ids.size());
  Batch batch{.rows = 1, .row_length = length, .tokens = ids};
  batch.positions.resize(ids.size());
  std::iota(batch.positions.begin(), batch.positions.end(), 0);
  batch.targets.assign(ids.size(), -1);
  batch.segments = {{0, length, 0, length}};
  return batch;
}

}  // namespace

void fill_mask(const ModelArguments& arguments, const std::string& text, int64_t count) {
  std::vector<int32_t> ids;
  LoadedModel model = load_model(arguments, [&](const HfModel& files, const Tokenizer* tokenizer) {
    if (files.spec.family != Family::encoder)
      throw ConfigError("generate: --fill-mask is for encoders; give {} a --prompt", arguments.model);
    if (!tokenizer) throw DataError("{}: no tokenizer beside the model", arguments.model);
    ids = masked_ids(*tokenizer, text, arguments.model);
    if (files.spec.position == Position::learned && int64_t(ids.size()) > files.spec.max_positions)
      throw ConfigError("generate: a text of {} tokens, but the model has {} positions", ids.size(),
                        files.spec.max_positions);
    return EngineShape{
        .rows = 1, .row_length = int64_t(ids.size()), .rehearse = [](Engine& engine) { logits_of(engine); }};
  });
  const Tokenizer& tokenizer = tokenizer_of(model);
  model.engine->load(one_row(ids));
  const std::vector<float> logits = logits_of(*model.engine);
  // Rows of the vocabulary that are no tokens are left out.
  const auto vocabulary = size_t(model.engine->model().spec().vocab_size);
  const auto named = std::min(vocabulary, size_t(tokenizer.vocab_size()));
  const int32_t mask = *tokenizer.special_tokens().mask;
  const auto masks = std::ranges::count(ids, mask);
  int64_t number = 0;
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] != mask) continue;
    if (masks > 1) fmt::print("{}mask {}\n", number > 0 ? "\n" : "", number + 1);
    ++number;
    for (const Candidate& c : likeliest(std::span(logits).subspan(i * vocabulary, named), size_t(count))) {
      std::vector<int32_t> filled = ids;
      filled[i] = c.token;
      fmt::print("{:6.2f} %  {:<16}", 100 * c.probability, tokenizer.token_text(c.token));
      fmt::print("{}\n", masks == 1 ? "  " + tokenizer.decode(filled, true) : "");
    }
  }
}

}  // namespace mixtape
