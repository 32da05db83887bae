#include "train/score.h"

#include <algorithm>
#include <cmath>

#include "core/ops/cast.h"
#include "core/ops/embedding.h"

namespace mixtape {
namespace {

// Rows of logits at a time, 32 MiB of them. Every chunk has as many, so that the plan is that of any batch.
int64_t chunk_rows(const Engine& engine) {
  const int64_t rows = std::max<int64_t>(1, (int64_t(8) << 20) / engine.model().spec().vocab_size);
  return std::min(rows, engine.predicting_rows());
}

TargetScore score_of(const float* logits, int64_t vocabulary, int32_t row, int32_t target) {
  const float largest = *std::max_element(logits, logits + vocabulary);
  double sum = 0;
  for (int64_t v = 0; v < vocabulary; ++v) sum += std::exp(logits[v] - largest);
  return {row, double(logits[target]) - double(largest) - std::log(sum), logits[target] == largest};
}

}  // namespace

std::vector<TargetScore> score_targets(Engine& engine, std::span<const int32_t> targets) {
  Backend& backend = engine.backend();
  Tape& tape = engine.tape();
  const int64_t vocabulary = engine.model().spec().vocab_size, chunk = chunk_rows(engine);
  std::vector<int32_t> rows;
  for (int32_t i = 0; i < int32_t(engine.predicting_rows()); ++i)
    if (backend.planning() || targets[i] >= 0) rows.push_back(i);

  tape.clear();
  tape.set_training(false);
  const Tensor hidden = engine.model().hidden(tape, engine.inputs());
  std::vector<TargetScore> scores;
  std::vector<float> logits;
  const auto count = int64_t(rows.size());
  rows.resize(size_t((count + chunk - 1) / chunk * chunk), -1);
  for (int64_t first = 0; first < count; first += chunk) {
    const Tensor index = backend.make({chunk}, DType::i32, Category::batch);
    backend.copy_from_host(index, rows.data() + first);
    const Tensor z = engine.model().logits(tape, gather_rows(tape, hidden, index));
    const Tensor wide = backend.make(z.shape(), DType::f32, Category::workspace);
    backend.cast().convert({.y = {wide, Write::overwrite}, .x = z});
    if (backend.planning()) continue;
    logits.resize(size_t(wide.count()));
    backend.copy_to_host(logits.data(), wide);
    for (int64_t i = 0; i < std::min(chunk, count - first); ++i) {
      const int32_t row = rows[size_t(first + i)];
      scores.push_back(score_of(logits.data() + i * vocabulary, vocabulary, row, targets[size_t(row)]));
    }
  }
  tape.clear();
  return scores;
}

}  // namespace mixtape
