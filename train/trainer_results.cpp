// What a run makes of its weights on the way and at its end: validations, samples, checkpoints, the exported model.
#include <functional>
#include <tuple>
#include <utility>

#include "train/evaluate.h"
#include "train/generate.h"
#include "train/parallel/watchdog.h"
#include "train/parallel/whole_weights.h"
#include "train/parallel/world.h"
#include "train/resume.h"
#include "train/text_sampler.h"
#include "train/trainer.h"

namespace mixtape {

void Trainer::validate() {
  if (validations_.empty() || validated_at_ == state_.updates) return;
  validated_at_ = state_.updates;
  if (!runs_model()) return;
  const Phase phase("validation");
  const Clock::time_point start = Clock::now();
  // Bits per byte are of a text that is predicted whole.
  const Tokenizer* bytes = config_.objective.name == ObjectiveKind::causal_lm ? tokenizer_.get() : nullptr;
  std::vector<Evaluation> parts;
  std::vector<SourceLoss> sources;
  for (const Validation& v : validations_) {
    parts.push_back(evaluate(*engine_, *v.objective, v.tokens, bytes));
    if (validations_.size() > 1) sources.push_back({v.source, parts.back().loss});
  }
  const Evaluation result = together(parts);
  const bool best = result.loss < state_.best_validation_loss;
  if (best) state_.best_validation_loss = result.loss;
  state_.last_validation_loss = result.loss;
  if (!leads()) return;
  reporter_->eval({.step = state_.updates,
                   .tokens = state_.tokens,
                   .loss = result.loss,
                   .perplexity = result.perplexity(),
                   .bits_per_byte = result.bits_per_byte,
                   .scores = result.scores,
                   .sources = std::move(sources),
                   .eval_tokens = result.targets,
                   .seconds = seconds_since(start),
                   .best = best});
}

void Trainer::sample() {
  if (!runs_model() || !can_generate(config_.model)) return;
  const Phase phase("samples");
  const auto start = int32_t(decoder_start(config_.objective.name, *tokenizer_).value_or(0));
  std::function<int32_t(int32_t)> agree;
  if (shares_out_weights())
    agree = [&](int32_t token) {
      Communicator& ranks = engine_->options().shards_weights ? ranks_ : grid_.tensor();
      return int32_t(broadcast_number(ranks, token));
    };
  for (const SampleText& s : sample_texts(*engine_, *tokenizer_, config_.logging, uint64_t(config_.seed), start, agree))
    if (leads()) reporter_->sample({state_.updates, state_.tokens, s.prompt, s.text});
}

// The same gradients make the same update, but unlike processors may round it unlike, and more so with every step.
void Trainer::expect_same_weights() const {
  const Parameters& p = engine_->parameters();
  if (ranks_.size() == 1 || p.storage().shards_weights) return;
  std::vector<std::byte> buffer;
  const auto* bytes = static_cast<const std::byte*>(engine_->backend().host_view(p.weights, buffer));
  const auto compare = [&](Communicator& ranks, std::span<const std::byte> weights, std::string_view advice) {
    if (ranks.size() > 1)
      expect_same(ranks, weights,
                  fmt::format("the weights differ between ranks: processors of another kind? {}", advice));
  };
  compare(grid_.data(), {bytes, size_t(p.weights.bytes())},
          "Set parallel.zero_stage=1, where each weight is updated by one process for all");
  std::vector<std::byte> of_all;  // what ranks that share out layers have each
  const int64_t size = size_of(p.weights.dtype());
  for (const ParameterEntry& entry : p.layout().entries())
    if (entry.cut == Cut::none && grid_.tensor().size() > 1)
      of_all.insert(of_all.end(), bytes + entry.offset * size, bytes + (entry.offset + entry.count()) * size);
  compare(grid_.tensor(), of_all, "Processes that share out layers must be of one kind");
}

void Trainer::save() {
  if (saved_at_ == state_.updates) return;
  const Phase phase("checkpoint");
  expect_same_weights();
  if (leads()) {
    write_checkpoint();
  } else {
    save_run(*engine_, *step_, state_, CheckpointDirectory({}), {}, {});
  }
  saved_at_ = broadcast_number(ranks_, saved_at_);
}

// A full disk must not end a run: the save is skipped loudly and training goes on.
void Trainer::write_checkpoint() {
  const Clock::time_point start = Clock::now();
  CheckpointEvent event{.step = state_.updates, .tokens = state_.tokens};
  // The best validation may fall between two checkpoints, so it is not what decides which of these is the best.
  const auto best_before = std::pair(state_.best_checkpoint, state_.best_checkpoint_loss);
  if (validated_at_ == state_.updates && *state_.last_validation_loss < state_.best_checkpoint_loss) {
    state_.best_checkpoint = state_.updates;
    state_.best_checkpoint_loss = *state_.last_validation_loss;
  }
  try {
    const std::filesystem::path path =
        save_run(*engine_, *step_, state_, *checkpoints_, special_ids_, tokenizer_files_);
    saved_at_ = state_.updates;
    event.path = path.string();
    for (const auto& file : std::filesystem::directory_iterator(path)) event.bytes += int64_t(file.file_size());
    checkpoints_->prune({.keep_last = config_.checkpoint.keep_last,
                         .keep_every = config_.checkpoint.keep_every,
                         .best = config_.checkpoint.keep_best ? state_.best_checkpoint : std::nullopt});
  } catch (const CheckpointError& error) {
    event.error = error.what();
    if (saved_at_ != state_.updates) std::tie(state_.best_checkpoint, state_.best_checkpoint_loss) = best_before;
  }
  event.seconds = seconds_since(start);
  reporter_->checkpoint(event);
}

void Trainer::finish() {
  validate();
  if (config_.logging.sample_interval > 0 && !due(config_.logging.sample_interval)) sample();
  save();
  if (saved_at_ != state_.updates)
    throw CheckpointError("the final checkpoint could not be saved; free disk space and run the same command again");
  if (!leads()) return;
  if (config_.checkpoint.export_at_end && state_.updates == total_steps_) export_model();
  reporter_->stop({state_.updates, state_.tokens, "finished", seconds_since(started_)});
}

// Beside its place and then renamed, so that a run killed here and finished again does not trip over a half-written
// one.
void Trainer::export_model() {
  const std::filesystem::path place = directory_->path() / "model", draft = directory_->path() / "model.partial";
  std::filesystem::remove_all(draft);
  const Parameters& p = engine_->parameters();
  // Merged and whole, as the checkpoint that was just saved is read.
  if (config_.lora.rank > 0 || shares_out_weights()) {
    export_huggingface(draft, import_huggingface(find_model(directory_->path())),
                       {.dtype = p.weights.dtype(), .allow_native = true});
    std::filesystem::remove_all(place);
    std::filesystem::rename(draft, place);
    return;
  }
  WholeWeights weights(engine_->parameters(), engine_->backend(), grid_);
  export_huggingface(
      draft, engine_->model().spec(), [&](const std::string& name) { return weights(name); },
      {.dtype = p.weights.dtype(), .ids = special_ids_, .tokenizer_files = tokenizer_files_, .allow_native = true});
  std::filesystem::remove_all(place);
  std::filesystem::rename(draft, place);
}

}  // namespace mixtape
