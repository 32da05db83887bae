// A training run, from its configuration to its last checkpoint.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/base/clock.h"
#include "core/communicator.h"
#include "train/checkpoint/checkpoint.h"
#include "train/config/config.h"
#include "train/data/tokenizer/tokenizer.h"
#include "train/engine.h"
#include "train/objective/loader.h"
#include "train/objective/make.h"
#include "train/objective/objective.h"
#include "train/report/reporter.h"
#include "train/report/run_directory.h"
#include "train/sample_log.h"
#include "train/step.h"

namespace mixtape {

class HfModel;

class Trainer {
 public:
  // `arguments`: the command line, for the run's records. Throws before anything is written if the configuration, the
  // data or the checkpoint do not fit. Of several ranks each makes one; rank 0's alone writes, reads checkpoints,
  // validates and reports.
  Trainer(ResolvedConfig config, std::vector<std::string> arguments, Communicator& ranks = single_process());
  ~Trainer();

  // Trains to the end, to train.stop_at_step, or to a signal. Returns ok or saved_after_signal.
  Exit run();

  const RunState& state() const { return state_; }
  Engine& engine() { return *engine_; }

 private:
  bool leads() const { return ranks_.rank() == 0; }
  // Whether this rank runs the model outside of steps: rank 0 and those that share out layers with it, or where weights
  // are shared out all alike.
  bool runs_model() const { return grid_.data().rank() == 0 || engine_->options().shards_weights; }
  bool shares_out_weights() const { return grid_.tensor().size() > 1 || engine_->options().shards_weights; }
  void expect_same_configuration() const;
  void take_place();
  void expect_same_kind_of_device() const;
  void open_data();
  std::optional<std::filesystem::path> checkpoint_to_resume() const;
  void start_or_resume();
  void open_records(const std::string& resumed_from);
  void resume_from(const std::filesystem::path& checkpoint);
  void initialise();
  void agree_on_choices();
  void announce();

  bool stop_is_asked();
  const GlobalBatch& next_batch();
  void one_step();
  void after_update(const StepResult& result, double lr);
  void after_nonfinite(const StepResult& result);
  void roll_back();
  void report_step(const StepResult& result, double lr);
  void restart_loader();

  void validate();
  void sample();
  void expect_same_weights() const;
  void save();
  void write_checkpoint();
  void export_model();
  void finish();
  bool due(int64_t interval) const { return interval > 0 && state_.updates % interval == 0; }

  ResolvedConfig resolved_;
  const Config& config_;
  std::vector<std::string> arguments_;
  Communicator& ranks_;
  RankGrid grid_;
  int threads_ = 1;
  int process_ = 0;  // among this run's on this machine
  int64_t total_steps_;

  std::unique_ptr<RunDirectory> directory_;  // rank 0's, as reporter_ and checkpoints_
  std::unique_ptr<Tokenizer> tokenizer_;
  std::vector<std::filesystem::path> tokenizer_files_;
  SpecialIds special_ids_;
  std::unique_ptr<Objective> objective_;
  std::vector<Validation> validations_;
  std::unique_ptr<Loader> loader_;
  SampleLog sample_log_{ranks_.rank()};

  MemoryPlan plan_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<TrainingStep> step_;
  std::unique_ptr<Reporter> reporter_;
  std::optional<CheckpointDirectory> checkpoints_;

  RunState state_;
  std::vector<uint64_t> tokens_by_source_;
  int64_t saved_at_ = -1;
  int64_t validated_at_ = -1;
  int64_t rollbacks_ = 0;
  Clock::time_point started_, step_started_;
  double stalled_before_ = 0;
};

}  // namespace mixtape
