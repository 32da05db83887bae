#include "train/objective/denoising.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/base/error.h"

namespace mixtape {
namespace {

using Tokens = std::vector<int32_t>;

int32_t ceil_share(size_t n, double share) { return std::min(int32_t(n), int32_t(std::ceil(double(n) * share))); }

// `count` of [0, n), in random order.
Tokens some_of(int32_t n, int32_t count, Draws& draws) {
  Tokens all(static_cast<size_t>(n));
  std::iota(all.begin(), all.end(), 0);
  for (int32_t i = 0; i < count; ++i) std::swap(all[size_t(i)], all[size_t(i) + draws.below(uint32_t(n - i))]);
  all.resize(size_t(count));
  return all;
}

// The steps of corrupted(), each on a document with its enclosing tokens, which stay where they are.
class Noise {
 public:
  Noise(const ObjectiveConfig& config, const TokenTable& table, std::span<const double> span_lengths, Draws& draws)
      : config_(config), table_(table), span_lengths_(span_lengths), draws_(draws) {}

  Tokens permute_sentences(const Tokens& document) {
    const auto sentences = sentences_of(document, table_);
    const auto n = int32_t(sentences.size());
    const Tokens from = some_of(n, ceil_share(sentences.size(), config_.permute_sentences), draws_);
    Tokens to = from, order(sentences.size());
    draws_.shuffle(std::span(to));
    std::iota(order.begin(), order.end(), 0);
    for (size_t i = 0; i < from.size(); ++i) order[size_t(from[i])] = to[i];
    return permuted(document, sentences, order);
  }

  // Returns how many masks of length 0 remain to be put in.
  int32_t infill(Tokens& document) {
    Tokens word_starts;
    const auto last = int32_t(document.size()) - 1;
    for (int32_t t = 1; t < last; ++t) {
      const int32_t token = document[size_t(t)];
      if (table_.begins_word[size_t(token)] && !table_.special(token)) word_starts.push_back(t);
    }
    const auto words = int32_t(word_starts.size());
    Tokens lengths = span_budget(ceil_share(word_starts.size(), config_.infill_rate), span_lengths_, draws_);
    const auto insertions = int32_t(std::erase(lengths, 0));
    std::vector<Infill> infills;
    for (const int32_t first : some_of(words, int32_t(lengths.size()), draws_)) {
      const int32_t next = first + lengths[infills.size()];
      const int32_t begin = word_starts[size_t(first)], end = next < words ? word_starts[size_t(next)] : last;
      infills.push_back({{begin, end - begin}, draws_.uniform() < config_.random_mask_share ? random_token() : mask()});
    }
    document = infilled(document, infills);
    return insertions;
  }

  void delete_tokens(Tokens& document) {
    const auto inner = int32_t(document.size()) - 2;
    const Tokens gone = some_of(inner, ceil_share(size_t(inner), config_.delete_rate), draws_);
    for (const int32_t t : gone) document[size_t(t) + 1] = -1;
    std::erase(document, -1);
  }

  void insert_masks(Tokens& document, int32_t count) {
    if (count == 0) return;
    Tokens places = some_of(int32_t(document.size()) + count - 2, count, draws_), values(size_t(count), mask());
    for (int32_t& place : places) ++place;  // <s> stays first
    const int32_t randoms = ceil_share(values.size(), config_.random_mask_share);
    for (int32_t i = 0; i < randoms; ++i) values[size_t(i)] = random_token();
    // Places are in random order, so that values may be in any.
    std::sort(places.begin(), places.end());
    draws_.shuffle(std::span(values));
    document = with_insertions(document, places, values);
  }

  void rotate(Tokens& document) {
    if (document.size() < 4 || draws_.uniform() >= config_.rotate_rate) return;
    const auto offset = std::ptrdiff_t(1 + draws_.below(uint32_t(document.size()) - 2));
    std::rotate(document.begin() + 1, document.begin() + offset, document.end() - 1);
  }

 private:
  int32_t mask() const { return *table_.ids.mask; }
  int32_t random_token() { return table_.ordinary[draws_.below(uint32_t(table_.ordinary.size()))]; }

  const ObjectiveConfig& config_;
  const TokenTable& table_;
  std::span<const double> span_lengths_;
  Draws& draws_;
};

}  // namespace

std::vector<double> poisson_table(double lambda) {
  std::vector<double> table;
  double p = std::exp(-lambda), total = 0;
  // A great lambda begins below the limit too.
  for (int k = 1; p >= 1e-7 || k <= lambda; p *= lambda / k++) {
    table.push_back(p);
    total += p;
  }
  for (double& x : table) x /= total;
  return table;
}

std::vector<TokenRange> sentences_of(std::span<const int32_t> document, const TokenTable& table) {
  std::vector<TokenRange> sentences;
  const auto last = int32_t(document.size()) - 2;  // of the text
  const auto full_stop = [&](int32_t t) { return t == last || table.is_full_stop[size_t(document[size_t(t)])]; };
  int32_t begin = 1;
  for (int32_t t = 1; t <= last; ++t) {
    if (!full_stop(t) || full_stop(t - 1)) continue;
    sentences.push_back({begin, t + 1 - begin});
    begin = t + 1;
  }
  return sentences;
}

std::vector<int32_t> permuted(std::span<const int32_t> document, std::span<const TokenRange> sentences,
                              std::span<const int32_t> order) {
  Tokens out(document.begin(), document.end());
  auto next = out.begin() + 1;
  for (const int32_t index : order) {
    const TokenRange sentence = sentences[size_t(index)];
    next = std::copy_n(document.begin() + sentence.begin, sentence.length, next);
  }
  return out;
}

std::vector<int32_t> span_budget(int32_t budget, std::span<const double> span_lengths, Draws& draws) {
  Tokens lengths;
  while (budget > 0) {
    double u = draws.uniform();
    int32_t length = 0;
    while (size_t(length) + 1 < span_lengths.size() && u >= span_lengths[size_t(length)])
      u -= span_lengths[size_t(length++)];
    lengths.push_back(std::min(length, budget));
    budget -= lengths.back();
  }
  return lengths;
}

std::vector<int32_t> infilled(std::span<const int32_t> document, std::span<const Infill> infills) {
  Tokens out(document.begin(), document.end());
  for (const Infill& infill : infills) out[size_t(infill.span.begin)] = infill.replacement;
  for (const Infill& infill : infills)
    for (int32_t t = infill.span.begin + 1; t < infill.span.end(); ++t) out[size_t(t)] = -1;
  std::erase(out, -1);
  return out;
}

std::vector<int32_t> with_insertions(std::span<const int32_t> document, std::span<const int32_t> places,
                                     std::span<const int32_t> values) {
  Tokens out;
  size_t next = 0;
  for (const int32_t token : document) {
    for (; next < places.size() && size_t(places[next]) == out.size(); ++next) out.push_back(values[next]);
    out.push_back(token);
  }
  return out;
}

std::vector<int32_t> corrupted(std::span<const int32_t> document, const ObjectiveConfig& config,
                               const TokenTable& table, std::span<const double> span_lengths, int32_t room,
                               Draws& draws) {
  Noise noise(config, table, span_lengths, draws);
  if (document.size() < 3) return {document.begin(), document.end()};
  Tokens tokens = noise.permute_sentences({document.begin(), document.end()});
  int32_t insertions = noise.infill(tokens);
  const auto insert = [&](int32_t count) {
    noise.insert_masks(tokens, std::min(count, room - int32_t(tokens.size())));
  };
  insert(insertions);
  noise.delete_tokens(tokens);
  insert(ceil_share(tokens.size(), config.insert_rate));
  noise.rotate(tokens);
  return tokens;
}

Denoising::Denoising(std::unique_ptr<const Dataset> data, const ObjectiveConfig& config, TokenTable table,
                     bool document_mask, uint64_t seed)
    : TextObjective(std::move(data)),
      config_(config),
      table_(std::move(table)),
      document_mask_(document_mask),
      seed_(seed),
      span_lengths_(poisson_table(config.poisson_lambda)) {
  if (!table_.ids.mask)
    throw ConfigError(
        "objective.name: denoising needs a mask token, which the tokenizer lacks; add [MASK] or <mask> to it, or name "
        "its mask_token in tokenizer_config.json");
}

void Denoising::append(const Sample& sample, Batch& batch) const {
  const std::span<const int32_t> clean = sample.tokens;
  const int32_t length = data().seq_length(), eos = *table_.ids.sep, pad = table_.ids.pad.value_or(eos);
  Draws draws(seed_, sample.index);
  const auto documents = documents_of_row(sample.document_starts, int32_t(clean.size()));
  Tokens noised;
  std::vector<TokenRange> noised_documents;
  int32_t left = int32_t(clean.size());  // clean tokens of this document and the next ones
  for (const TokenRange document : documents) {
    left -= document.length;
    const int32_t room = length - int32_t(noised.size()) - left;
    const Tokens one = corrupted(clean.subspan(size_t(document.begin), size_t(document.length)), config_, table_,
                                 span_lengths_, room, draws);
    noised_documents.push_back({int32_t(noised.size()), int32_t(one.size())});
    noised.insert(noised.end(), one.begin(), one.end());
  }

  const auto row = int32_t(batch.tokens.size()), decoder_row = int32_t(batch.decoder.tokens.size());
  const std::vector<TokenRange> whole{{0, int32_t(noised.size())}}, clean_whole{{0, int32_t(clean.size())}};
  const auto& read = document_mask_ ? noised_documents : whole;
  const auto& written = document_mask_ ? documents : clean_whole;
  append_padded(noised, length, pad, batch.tokens);
  append_segments(read, length, batch.positions, batch.segments);

  Batch::Decoder& decoder = batch.decoder;
  decoder.tokens.push_back(eos);  // a document ends with eos, so that each begins after one
  append_padded(clean.first(clean.size() - 1), length - 1, pad, decoder.tokens);
  append_padded(clean, length, -1, batch.targets);
  append_segments(written, length, decoder.positions, decoder.segments);
  for (size_t d = 0; d < read.size(); ++d)
    decoder.cross_segments.push_back(
        {decoder_row + written[d].begin, written[d].length, row + read[d].begin, read[d].length});

  batch.n_tokens += int64_t(noised.size());
  batch.n_targets += int64_t(clean.size());
}

}  // namespace mixtape
