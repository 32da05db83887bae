#include "train/generate.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/ops/cast.h"

namespace mixtape {

Generator::Generator(Engine& engine, int64_t slots, int64_t capacity)
    : engine_(engine),
      slots_(slots),
      encodes_(engine.model().spec().family == Family::encoder_decoder),
      cache_(engine.model().spec(), slots, capacity, encodes_ ? capacity : 0, engine.backend(),
             engine.options().types.compute, engine.model().parallel()) {}

StackInputs Generator::rows_of(const std::vector<std::vector<int32_t>>& tokens, const std::vector<int64_t>& start) {
  std::vector<int32_t> ids, positions;
  for (size_t i = 0; i < tokens.size(); ++i)
    for (size_t t = 0; t < tokens[i].size(); ++t) {
      ids.push_back(tokens[i][t]);
      positions.push_back(int32_t(start[i] + int64_t(t)));
    }
  Backend& backend = engine_.backend();
  const auto rows = int64_t(ids.size());
  const StackInputs inputs{.tokens = backend.make({rows}, DType::i32, Category::batch),
                           .positions = backend.make({rows}, DType::i32, Category::batch)};
  backend.copy_from_host(inputs.tokens, ids.data());
  backend.copy_from_host(inputs.positions, positions.data());
  return inputs;
}

std::vector<float> Generator::feed(const std::vector<int>& slots, const std::vector<std::vector<int32_t>>& tokens,
                                   bool decoding) {
  std::vector<int64_t> starts, counts;
  for (size_t i = 0; i < slots.size(); ++i) {
    starts.push_back(cache_.length(slots[i]));
    counts.push_back(int64_t(tokens[i].size()));
  }
  Backend& backend = engine_.backend();
  const StackInputs inputs = rows_of(tokens, starts);

  Tape& tape = engine_.tape();
  tape.clear();
  tape.set_training(false);
  tape.set_decoding(decoding);
  cache_.begin(slots, counts);
  Tensor hidden = engine_.model().hidden_of_new(tape, inputs, cache_);
  cache_.commit();
  // Decoding has one row a sequence; a prefill is one sequence, of which the last row predicts.
  if (!decoding) hidden = hidden.slice(hidden.rows() - 1, 1);
  tape.set_decoding(true);
  const Tensor logits = engine_.model().logits(tape, hidden);
  tape.set_decoding(false);
  const Tensor wide = backend.make(logits.shape(), DType::f32, Category::workspace);
  backend.cast().convert({.y = {wide, Write::overwrite}, .x = logits});
  std::vector<float> result(size_t(wide.count()));
  backend.copy_to_host(result.data(), wide);
  tape.clear();
  return result;
}

void Generator::encode(int slot, const std::vector<int32_t>& prompt) {
  Backend& backend = engine_.backend();
  StackInputs inputs = rows_of({prompt}, {0});
  inputs.segments = backend.make({1, 4}, DType::i32, Category::batch);
  inputs.n_segments = backend.make({1}, DType::i32, Category::batch);
  const auto length = int32_t(prompt.size()), one = int32_t(1);
  const Segment whole{0, length, 0, length};
  backend.copy_from_host(inputs.segments, &whole);
  backend.copy_from_host(inputs.n_segments, &one);
  Tape& tape = engine_.tape();
  tape.clear();
  tape.set_training(false);
  engine_.model().read(tape, inputs, cache_, slot);
  tape.clear();
}

std::vector<float> Generator::prefill(int slot, const std::vector<int32_t>& prompt, const SamplingOptions& options) {
  cache_.clear(slot);
  if (!encodes_) return feed({slot}, {prompt}, false);
  encode(slot, prompt);
  return feed({slot}, {{options.decoder_start}}, false);
}

std::vector<std::vector<int32_t>> Generator::generate(const std::vector<std::vector<int32_t>>& prompts,
                                                      const SamplingOptions& options, const OnToken& on_token) {
  std::vector<std::vector<int32_t>> out(prompts.size());
  for (size_t first = 0; first < prompts.size(); first += size_t(slots_))
    generate_group(prompts, first, std::min(size_t(slots_), prompts.size() - first), options, on_token, out);
  return out;
}

void Generator::generate_group(const std::vector<std::vector<int32_t>>& prompts, size_t first, size_t count,
                               const SamplingOptions& options, const OnToken& on_token,
                               std::vector<std::vector<int32_t>>& out) {
  const size_t vocab = size_t(engine_.model().spec().vocab_size);
  std::vector<int> active;
  std::vector<std::vector<int32_t>> last;

  // Takes the next token of a prompt; true if the sequence goes on.
  const auto take = [&](size_t prompt, std::span<const float> logits) {
    std::vector<int32_t>& tokens = out[prompt];
    const auto bits = philox(philox_key(options.seed), tokens.size(), uint32_t(prompt), Purpose::sampling);
    const int32_t here = sample_token(logits, options, uniform(bits[0]));
    const int32_t token = options.agree ? options.agree(here) : here;
    if (token == options.stop_token) return false;
    tokens.push_back(token);
    if (on_token) on_token(prompt, token);
    const size_t before = encodes_ ? 1 : prompts[prompt].size();
    return int64_t(tokens.size()) < options.max_new_tokens && int64_t(before + tokens.size()) < cache_.capacity();
  };

  for (size_t i = 0; i < count; ++i) {
    const int slot = int(i);
    if (prompts[first + i].empty()) throw Error("generate: prompt {} is empty", first + i);
    const std::vector<float> logits = prefill(slot, prompts[first + i], options);
    if (options.max_new_tokens > 0 && take(first + i, logits)) active.push_back(slot);
  }
  while (!active.empty()) {
    last.clear();
    for (int slot : active) last.push_back({out[first + size_t(slot)].back()});
    const std::vector<float> logits = feed(active, last, true);
    std::vector<int> still;
    for (size_t i = 0; i < active.size(); ++i)
      if (take(first + size_t(active[i]), std::span(logits).subspan(i * vocab, vocab))) still.push_back(active[i]);
    active = std::move(still);
  }
}

int32_t sample_token(std::span<const float> logits, const SamplingOptions& options, float draw) {
  if (options.tokens > 0) logits = logits.first(std::min(logits.size(), size_t(options.tokens)));
  const auto likeliest = std::max_element(logits.begin(), logits.end());
  if (options.temperature <= 0) return int32_t(likeliest - logits.begin());

  // Likeliest first, ties by id: what is cut off does not depend on the sort.
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  const auto likelier = [&](int32_t a, int32_t b) { return logits[a] != logits[b] ? logits[a] > logits[b] : a < b; };
  const size_t keep = options.top_k > 0 ? std::min<size_t>(size_t(options.top_k), order.size()) : order.size();
  if (keep < order.size()) {
    std::nth_element(order.begin(), order.begin() + int64_t(keep) - 1, order.end(), likelier);
    order.resize(keep);
  }
  const bool ordered = options.top_p < 1;
  if (ordered) std::sort(order.begin(), order.end(), likelier);

  std::vector<double> weight(order.size());
  double total = 0;
  for (size_t i = 0; i < order.size(); ++i) {
    weight[i] = std::exp((double(logits[order[i]]) - double(*likeliest)) / options.temperature);
    total += weight[i];
  }
  size_t end = order.size();
  if (ordered) {
    double sum = 0;
    for (end = 0; end < order.size();) {
      sum += weight[end++];
      if (sum >= options.top_p * total) break;
    }
    total = sum;
  }
  double target = double(draw) * total;
  for (size_t i = 0; i < end; ++i) {
    target -= weight[i];
    if (target < 0) return order[i];
  }
  return order[end - 1];
}

void plan_generation(Engine& planning, const LoggingConfig& config) {
  const int64_t slots = std::max<int64_t>(1, int64_t(config.sample_prompts.size()));
  Generator generator(planning, slots, planning.options().row_length);
  std::vector<std::vector<int32_t>> prompts(size_t(slots),
                                            std::vector<int32_t>(size_t(planning.options().row_length) - 1));
  generator.generate(prompts, {.max_new_tokens = 2, .temperature = 0});
}

}  // namespace mixtape
