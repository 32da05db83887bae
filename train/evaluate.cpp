#include "train/evaluate.h"

#include <cmath>
#include <functional>

#include "train/score.h"

namespace mixtape {

double Evaluation::perplexity() const { return std::exp(loss); }

Evaluation together(const std::vector<Evaluation>& parts) {
  if (parts.size() == 1) return parts.front();
  Evaluation all;
  double sum = 0;
  for (const Evaluation& part : parts) {
    sum += part.loss * double(part.targets);
    all.targets += part.targets;
    all.bytes += part.bytes;
  }
  all.loss = sum / double(all.targets);
  if (all.bytes > 0) all.bits_per_byte = sum / std::log(2.0) / double(all.bytes);
  return all;
}

Evaluation evaluate(Engine& engine, const Objective& objective, int64_t max_targets, const Tokenizer* tokenizer,
                    const std::function<void(int64_t)>& progress, bool accuracy) {
  std::vector<int64_t> token_length;
  if (tokenizer)
    for (int32_t id = 0; id < tokenizer->vocab_size(); ++id)
      token_length.push_back(tokenizer->is_special(id) ? 0 : int64_t(tokenizer->token_bytes(id).size()));

  engine.state().inverse_targets = 1;  // sums, not means: the number of targets is known at the end
  engine.upload_state();

  Evaluation result;
  const std::unique_ptr<Scorer> scorer = objective.scorer();
  Batch batch;
  double sum = 0;
  int64_t right = 0;
  const uint64_t rows = uint64_t(engine.options().rows);
  const uint64_t end = objective.size().value_or(UINT64_MAX);
  std::vector<uint64_t> samples;
  for (uint64_t next = 0; next < end && result.targets < max_targets; next += rows) {
    samples.clear();
    for (uint64_t i = next; i < std::min(next + rows, end); ++i) samples.push_back(i);
    objective.fill(samples, batch);
    pad_batch(batch, engine.options());
    engine.load(batch);
    if (accuracy) {
      for (const TargetScore& score : score_targets(engine, batch.targets)) {
        sum -= score.log_likelihood;
        right += score.likeliest;
      }
    } else {
      sum += engine.run_micro_batch(false);
      if (scorer) scorer->add(batch, engine.predictions());
    }
    result.targets += batch.n_targets;
    if (tokenizer)
      for (int32_t target : batch.targets)
        if (target >= 0 && target < int32_t(token_length.size())) result.bytes += token_length[target];
    if (progress) progress(result.targets);
  }
  if (result.targets == 0) throw DataError("evaluation: the data has no targets");
  result.loss = sum / double(result.targets);
  if (scorer) result.scores = scorer->scores();
  if (accuracy) result.accuracy = double(right) / double(result.targets);
  if (result.bytes > 0) result.bits_per_byte = sum / std::log(2.0) / double(result.bytes);
  return result;
}

}  // namespace mixtape
