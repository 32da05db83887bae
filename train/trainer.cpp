#include "train/trainer.h"

#include <numeric>
#include <utility>

#include "train/optim/schedule.h"
#include "train/parallel/placement.h"
#include "train/parallel/watchdog.h"
#include "train/parallel/world.h"
#include "train/report/machine.h"
#include "train/report/units.h"
#include "train/resume.h"
#include "train/signals.h"
#include "train/tuning_cache.h"

namespace mixtape {
Trainer::Trainer(ResolvedConfig config, std::vector<std::string> arguments, Communicator& ranks)
    : resolved_(std::move(config)),
      config_(resolved_.config),
      arguments_(std::move(arguments)),
      ranks_(ranks),
      grid_(ranks),
      total_steps_(config_.total_steps()),
      started_(Clock::now()) {
  check(config_, resolved_.origins, build_features());
  check_ranks(config_, ranks_.size(), resolved_.origins);
  expect_same_configuration();
  grid_ = RankGrid(ranks_, int(config_.parallel.tensor_parallel_size));
  take_place();
  open_data();
  EngineOptions options = training_options(config_, grid_);
  options.device.process = process_;
  if (ranks_.size() > 1) options.device.threads = threads_;
  plan_ = plan_training(options, config_, grid_);
  engine_ = std::make_unique<Engine>(options, plan_.memory());
  expect_same_kind_of_device();
  step_ = std::make_unique<TrainingStep>(*engine_, config_, grid_);
  if (leads()) {
    directory_ = std::make_unique<RunDirectory>(config_.run_directory());
    checkpoints_.emplace(directory_->checkpoints());
  }
  start_or_resume();
}

Trainer::~Trainer() = default;

// Machines may have unlike copies of a file, and ranks would train unlike models.
void Trainer::expect_same_configuration() const {
  const std::string here = to_yaml(config_);
  if (broadcast_text(ranks_, here) != here)
    throw ConfigError("the configuration differs from rank 0's; give all processes the same files and arguments");
}

// Processes on one machine share its cores, and have a GPU each.
void Trainer::take_place() {
  threads_ = int(config_.runtime.threads.value_or(available_cores()));
  if (ranks_.size() == 1) return;
  const std::vector<Place> places = places_of(ranks_);
  process_ = process_of_machine(places, ranks_.rank());
  if (const std::string advice = binding_advice(places); !advice.empty()) console().warn(advice);
  threads_ = int(config_.runtime.threads.value_or(std::min(available_cores(), fair_threads(places, ranks_.rank()))));
}

// Ranks on GPUs meet through another library than those on CPUs, and would wait for each other.
void Trainer::expect_same_kind_of_device() const {
  const bool cpu = engine_->backend().name() == "cpu";
  const bool any_cpu = on_any(ranks_, cpu), any_gpu = on_any(ranks_, !cpu);
  if (any_cpu && any_gpu)
    throw ConfigError("device: {}, and of the {} processes some have a GPU and some none; set device: cpu or cuda",
                      config_.device, ranks_.size());
}

void Trainer::open_data() {
  tokenizer_ = load_tokenizer(config_.data.tokenizer);
  if (tokenizer_->vocab_size() > config_.model.vocab_size)
    throw ConfigError("model.vocab_size: {}, but {} has {} tokens; set model.vocab_size to at least that",
                      config_.model.vocab_size, config_.data.tokenizer, tokenizer_->vocab_size());
  // A preset's padding token may be a word of this tokenizer, whose embedding would then not learn from lookups.
  const int64_t pad = tokenizer_->pad_id().value_or(-1);
  if (config_.model.pad_id >= 0 && config_.model.pad_id != pad)
    throw ConfigError("model.pad_id: {}, but {} {}; set model.pad_id to {}", config_.model.pad_id,
                      config_.data.tokenizer, pad < 0 ? "has no padding token" : fmt::format("pads with token {}", pad),
                      pad);
  objective_ = training_objective(config_, *tokenizer_);
  validations_ = validations(config_, *tokenizer_);
  for (const SourceStatistics& s : objective_->statistics()) {
    if (s.cut > 0)
      console().warn(fmt::format("{}: {} longer than data.seq_length allows, and cut", s.name,
                                 counted(int64_t(s.cut), "example")));
    if (s.without_target > 0)
      console().warn(fmt::format("{}: {} left out: with data.seq_length {} nothing of their target is left", s.name,
                                 counted(int64_t(s.without_target), "example"), config_.data.seq_length));
  }
}

std::optional<std::filesystem::path> Trainer::checkpoint_to_resume() const {
  const std::string& resume = config_.run.resume;
  const auto warn = [](const std::string& text) { console().warn(text); };
  checkpoints_->clean_leftovers();
  if (resume == "never") {
    if (!checkpoints_->list().empty())
      throw ConfigError("run.resume: never, but {} holds a run; choose another run.name or run.resume: auto",
                        directory_->path().string());
    return {};
  }
  if (resume == "auto") {
    const auto newest = checkpoints_->newest_whole(warn);
    return newest ? std::optional(newest->path) : std::nullopt;
  }
  verify_checkpoint(resume, warn);
  return resume;
}

void Trainer::start_or_resume() {
  std::string from;
  if (leads()) {
    from = checkpoint_to_resume().value_or("").string();
    console().log_to(directory_->log_file());
  }
  from = broadcast_text(ranks_, from);
  if (!from.empty()) {
    resume_from(from);
  } else {
    initialise();
  }
  agree_on_choices();
  state_.config = to_yaml(config_);
  state_.written_by = build_text();
  if (leads()) open_records(from);
}

// What the run leaves behind from now on.
void Trainer::open_records(const std::string& resumed_from) {
  directory_->write_config(to_yaml(config_));
  directory_->write_environment(arguments_);
  tokenizer_->save(directory_->path() / "tokenizer");
  tokenizer_files_ = tokenizer_files_in(directory_->path() / "tokenizer");
  special_ids_ = {tokenizer_->bos_id(),     tokenizer_->eos_id(),
                  tokenizer_->pad_id(),     decoder_start(config_.objective.name, *tokenizer_),
                  config_.objective.labels, config_.run.init_from.value_or("")};
  reporter_ = std::make_unique<Reporter>(
      *directory_, ReporterOptions{config_.logging.interval, config_.logging.tensorboard, total_steps_},
      ResumePoint{state_.updates, state_.attempts});
  announce();
  if (!resumed_from.empty()) reporter_->resume({state_.updates, state_.tokens, resumed_from});
}

void Trainer::resume_from(const std::filesystem::path& checkpoint) {
  std::optional<CheckpointReader> reader;
  if (leads()) {
    reader.emplace(checkpoint);
    const Config saved = parse_resolved(reader->state().config, (checkpoint / "state.json").string());
    const std::vector<ConfigChange> changes = compare_for_resume(saved, config_);
    refuse_changes(changes, resolved_.origins);
    for (const ConfigChange& change : changes)
      console().line(fmt::format("changed since the checkpoint: {}: {} -> {}", change.key, change.saved, change.now));
  }
  state_ = load_run(*engine_, *step_, reader ? &*reader : nullptr);
  saved_at_ = state_.updates;
}

void Trainer::initialise() {
  engine_->backend().set_choices(broadcast_text(ranks_, leads() ? load_tuning(engine_->backend()) : ""));
  if (config_.run.init_from) {
    const HfModel model = import_huggingface(find_model(*config_.run.init_from), &config_.model);
    expect_same_shapes(model, config_);
    if (!model.fresh.empty() || config_.lora.rank > 0) engine_->parameters().initialise(uint64_t(config_.seed));
    if (!model.fresh.empty())
      console().line(fmt::format("new, not in {}: {}", *config_.run.init_from, fmt::join(model.fresh, ", ")));
    load_weights(*engine_, model);
  } else {
    engine_->parameters().initialise(uint64_t(config_.seed));
  }
  state_ = {};
  state_.seed = uint64_t(config_.seed);
}

// Which library multiplies which shape is timed where it is first met. Ranks must choose alike, or a rerun from rank
// 0's choices would have other bits: so it does that for all, on micro-batches of which nothing remains.
void Trainer::agree_on_choices() {
  if (ranks_.size() == 1 || config_.determinism == Determinism::strict) return;
  if (runs_model()) {
    std::vector<uint64_t> samples(size_t(config_.train.micro_batch_size));
    std::iota(samples.begin(), samples.end(), uint64_t(0));
    Batch batch;
    objective_->fill(samples, batch);
    engine_->load(batch);
    engine_->parameters().buckets().new_step();
    for (int i = 0; i < 2; ++i) engine_->run_micro_batch(true);  // gradients that overwrite, and that are added
  }
  engine_->backend().set_choices(broadcast_text(ranks_, engine_->backend().choices()));
}

void Trainer::announce() {
  const auto bytes = [&](Category c) { return plan_.at_peak[int(c)]; };
  reporter_->start({.step = state_.updates,
                    .tokens = state_.tokens,
                    .name = config_.run.name,
                    .command = shell_command(arguments_),
                    .device = ranks_.size() == 1 ? engine_->backend().name()
                                                 : fmt::format("{} x {}", ranks_.size(), engine_->backend().name()),
                    .precision = std::string(name_of(engine_->options().types.compute)),
                    .parameters = engine_->model().layout().parameter_count(),
                    .learning = engine_->model().layout().learning_count(),
                    .flops_per_token = engine_->model().flops_per_token(engine_->options().lengths()),
                    .tokens_per_step = config_.tokens_per_step(),
                    .max_tokens = config_.total_tokens(),
                    .max_steps = total_steps_,
                    .threads = threads_,
                    .memory = {.parameters = bytes(Category::parameters) + bytes(Category::master),
                               .gradients = bytes(Category::gradients),
                               .optimizer = bytes(Category::optimizer),
                               .activations = bytes(Category::activations) + bytes(Category::batch),
                               .workspace = bytes(Category::workspace)}});
}

void Trainer::restart_loader() {
  loader_.reset();
  loader_ = std::make_unique<Loader>(
      *objective_,
      LoaderOptions{.micro_batch_size = int(config_.train.micro_batch_size),
                    .global_batch_size = int(config_.train.global_batch_size),
                    .batch_size_at = [this](uint64_t samples) { return config_.batch_size_at(int64_t(samples)); },
                    .first_sample = uint64_t(state_.samples),
                    .rank = grid_.data().rank(),
                    .world = grid_.data().size(),
                    .in_turns = sums_each_micro_batch(config_, grid_.data())});
  stalled_before_ = 0;
}

// Ranks stop at the same step, whichever of them was signalled.
bool Trainer::stop_is_asked() {
  if (ranks_.size() == 1) return StopSignals::received() != 0;
  Phase::set_step(state_.updates + 1);
  const Phase phase("meeting before a step", Phase::waits);
  return on_any(ranks_, StopSignals::received() != 0);
}

Exit Trainer::run() {
  const StopSignals signals;
  restart_loader();
  const int64_t end = std::min(total_steps_, config_.train.stop_at_step.value_or(total_steps_));
  try {
    while (state_.updates < end) {
      if (!stop_is_asked()) {
        one_step();
        continue;
      }
      save();
      if (leads()) reporter_->stop({state_.updates, state_.tokens, "signal", seconds_since(started_)});
      return Exit::saved_after_signal;
    }
    finish();
  } catch (const std::exception& error) {
    if (leads()) reporter_->stop({state_.updates, state_.tokens, error.what(), seconds_since(started_)});
    throw;
  }
  return Exit::ok;
}

const GlobalBatch& Trainer::next_batch() {
  const Phase phase("data");
  return loader_->next();
}

void Trainer::one_step() {
  step_started_ = Clock::now();
  const GlobalBatch& batch = next_batch();
  const double lr = learning_rate(config_.schedule, config_.optimizer.lr, state_.updates, total_steps_);
  const StepResult result = step_->run(batch, lr);
  state_.attempts = int64_t(engine_->state().attempts);
  sample_log_.add(state_.attempts, batch);
  state_.samples += config_.batch_size_at(state_.samples);
  if (result.finite) {
    after_update(result, lr);
  } else {
    after_nonfinite(result);
  }
}

void Trainer::after_update(const StepResult& result, double lr) {
  state_.updates = int64_t(engine_->state().updates);
  state_.tokens += result.n_tokens;
  state_.consecutive_skips = 0;
  report_step(result, lr);
  // The libraries for all shapes of training have been chosen by now: a rerun makes the same choices.
  if (state_.updates == 1 && leads()) save_tuning(engine_->backend());
  if (due(config_.eval.interval)) validate();
  if (due(config_.logging.sample_interval)) sample();
  if (due(config_.checkpoint.interval)) save();
}

void Trainer::report_step(const StepResult& result, double lr) {
  const double seconds = seconds_since(step_started_);
  state_.seconds += seconds;
  if (!leads()) return;
  StepMetrics m{.step = state_.updates,
                .attempt = state_.attempts,
                .tokens = state_.tokens,
                .loss = result.loss,
                .grad_norm = result.grad_norm,
                .lr = lr,
                .loss_scale = result.loss_scale,
                .tokens_per_second = double(result.n_tokens) / seconds,
                .step_seconds = seconds,
                .data_wait_share = (loader_->stall_seconds() - stalled_before_) / seconds,
                .model_flops_per_second =
                    double(result.n_tokens) * engine_->model().flops_per_token(engine_->options().lengths()) / seconds,
                .memory_bytes = engine_->arena().peak(),
                .skipped = !result.finite};
  stalled_before_ = loader_->stall_seconds();
  if (result.finite && due(config_.logging.interval)) {
    const std::vector<uint64_t> counts = objective_->counts(uint64_t(state_.samples));
    const std::vector<SourceStatistics> sources = objective_->statistics();
    for (size_t i = 0; i < sources.size(); ++i)
      m.sources.push_back({sources[i].name, double(counts[i]) / double(state_.samples),
                           double(counts[i]) / sources[i].samples_per_epoch});
  }
  reporter_->step(m);
}

void Trainer::after_nonfinite(const StepResult& result) {
  ++state_.skipped_steps;
  report_step(result, learning_rate(config_.schedule, config_.optimizer.lr, state_.updates, total_steps_));
  if (result.scale_adapts) return;
  ++state_.consecutive_skips;
  const NonfiniteConfig& rule = config_.train.on_nonfinite;
  const std::string what = fmt::format("step {} (attempt {}): the loss is {} and the gradient norm {}",
                                       state_.updates + 1, state_.attempts, result.loss, result.grad_norm);
  switch (rule.policy) {
    case NonfinitePolicy::stop:
      throw NumericsError("{}; train.on_nonfinite.policy is stop. Lower optimizer.lr or train.clip_grad", what);
    case NonfinitePolicy::skip:
      if (leads()) reporter_->warning({state_.updates, state_.tokens, what + "; the step is skipped"});
      if (state_.consecutive_skips >= rule.limit)
        throw NumericsError(
            "{}; {} steps in a row were not finite (train.on_nonfinite.limit). Lower optimizer.lr or "
            "train.clip_grad, or go on from an earlier checkpoint with run.resume",
            what, state_.consecutive_skips);
      return;
    case NonfinitePolicy::rollback:
      if (leads()) reporter_->warning({state_.updates, state_.tokens, what + "; back to the last checkpoint"});
      if (++rollbacks_ > rule.limit)
        throw NumericsError("{}; {} rollbacks did not help (train.on_nonfinite.limit)", what, rule.limit);
      roll_back();
  }
}

// Weights, moments and the count of updates go back; the data goes on after the failure, so that it is not met again.
void Trainer::roll_back() {
  std::optional<CheckpointReader> reader;
  if (leads()) {
    const auto newest = checkpoints_->newest_whole([](const std::string& text) { console().warn(text); });
    if (!newest)
      throw NumericsError("step {}: not finite, and there is no checkpoint to go back to; set checkpoint.interval",
                          state_.updates + 1);
    reader.emplace(newest->path);
  }
  const int64_t samples = state_.samples, attempts = state_.attempts;
  state_ = load_run(*engine_, *step_, reader ? &*reader : nullptr);
  state_.samples = samples;
  state_.attempts = attempts;
  state_.config = to_yaml(config_);
  engine_->state().attempts = uint64_t(attempts);
  engine_->upload_state();
  if (leads()) reporter_->resume({state_.updates, state_.tokens, reader->path().string()});
  restart_loader();
}

}  // namespace mixtape
