// A run's whole configuration, and what is done with it: load, check, write, compare.
//
// Names of settings, defaults, ranges, aliases and help texts stand in the field tables of the section headers; the
// functions here walk them. docs/config.md is generated from the same tables.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "train/config/data.h"
#include "train/config/lora.h"
#include "train/config/model.h"
#include "train/config/objective.h"
#include "train/config/optimizer.h"
#include "train/config/origin.h"
#include "train/config/output.h"
#include "train/config/parameters.h"
#include "train/config/precision.h"
#include "train/config/resources.h"
#include "train/config/run.h"
#include "train/config/schedule.h"
#include "train/config/train.h"

namespace mixtape {

struct Config {
  std::string device = "auto";
  int64_t seed = 1234;
  Determinism determinism = Determinism::fast;
  RunConfig run;
  ModelConfig model;
  ObjectiveConfig objective;
  DataConfig data;
  TrainConfig train;
  ParametersConfig parameters;
  LoraConfig lora;
  OptimizerConfig optimizer;
  ScheduleConfig schedule;
  PrecisionConfig precision;
  MemoryConfig memory;
  AttentionConfig attention;
  ParallelConfig parallel;
  RuntimeConfig runtime;
  EvalConfig eval;
  CheckpointConfig checkpoint;
  LoggingConfig logging;

  // The length of the run in updates, from train.max_steps or train.max_tokens; 0 where neither is given.
  int64_t total_steps() const;
  int64_t total_samples() const;  // sequences in all these updates; INT64_MAX where there are more
  int64_t total_tokens() const;   // in them
  // Sequences in the update that comes after so many sequences: train.global_batch_size, or less on its ramp.
  int64_t batch_size_at(int64_t samples) const;
  int64_t tokens_per_step() const { return train.global_batch_size * data.seq_length; }
  std::filesystem::path run_directory() const { return std::filesystem::path(run.dir) / run.name; }
};

constexpr auto fields(std::type_identity<Config>) {
  using C = Config;
  return std::tuple{
      field("device", &C::device, "auto, cpu, cuda or cuda:N; auto takes a GPU where there is one"),
      field("seed", &C::seed,
            "of initial weights, data order, dropout and samples; a change on resume begins a new "
            "data order",
            at_least(0)),
      field("determinism", &C::determinism,
            "the same binary, seed, configuration and device always give the same bits; strict: whatever the number of "
            "threads or devices (1, 2, 4, 8), too"),
      field("run", &C::run, "where the run lives and where it starts"),
      field("model", &C::model, "the architecture",
            refused_on_resume("the checkpoint's weights fit only the model they were trained in; start a new run with "
                              "run.init_from")),
      field("objective", &C::objective, "what the model learns to predict"),
      field("data", &C::data, "what it learns from"),
      field("train", &C::train, "batch, length of the run, safety"),
      field("parameters", &C::parameters, "which parameters learn, and how fast"),
      field("lora", &C::lora, "low-rank adapters: fine-tuning with few parameters",
            refused_on_resume("the checkpoint's adapters are others; start a new run with run.init_from")),
      field("optimizer", &C::optimizer, "the update rule"),
      field("schedule", &C::schedule, "the learning rate over the run"),
      field("precision", &C::precision, "types of arithmetic and storage"),
      field("memory", &C::memory, "computation or transfers traded for memory"),
      field("attention", &C::attention, "which attention kernels run"),
      field("parallel", &C::parallel, "how several devices share the work"),
      field("runtime", &C::runtime, "threads and launches"),
      field("eval", &C::eval, "validation during the run"),
      field("checkpoint", &C::checkpoint, "what is saved and kept"),
      field("logging", &C::logging, "what is shown"),
  };
}

struct ResolvedConfig {
  Config config;
  Origins origins;
};

// Reads the files in order, then the overrides (`section.key=value`, also with `--` before it; the value is YAML);
// later ones win, key by key, lists as a whole. model.preset lies below all of them. Zeros of the model that stand for
// another value (n_kv_heads, head_dim, d_ff) are replaced by it. Does not call check().
// Throws ConfigError, its line beginning with the file and line or the command-line argument.
ResolvedConfig load_config(const std::vector<std::filesystem::path>& files,
                           const std::vector<std::string>& overrides = {});

// The same for a command's arguments: what has a '=' is an override, everything else a file.
ResolvedConfig load_arguments(const std::vector<std::string>& arguments);

// The same for one text in memory; `name` stands for the file in messages. Presets are not looked up beside it.
ResolvedConfig parse_config(std::string_view yaml, const std::string& name,
                            const std::vector<std::string>& overrides = {});

// Reads what to_yaml wrote, such as a checkpoint's configuration: every key is there, so no preset is looked up, and
// the model is what it was even if the preset has changed or is not at hand.
Config parse_resolved(std::string_view yaml, const std::string& name);
Config read_resolved(const std::filesystem::path& file);

// What a model predicts under an objective.
Head head_of(ObjectiveKind kind);

// What the program was built with, as far as it decides which settings can be honoured.
struct BuildFeatures {
  bool cuda = false;
};

// Rules across keys, and settings that this build or version cannot honour. Throws ConfigError with every violation, a
// line each: where the value stands, key, value, what is expected, what to do.
void check(const Config& config, const Origins& origins = {}, const BuildFeatures& build = {});

// Rules for a run on several processes, of which check() knows nothing. Throws ConfigError, as it does.
void check_ranks(const Config& config, int ranks, const Origins& origins = {});

// Only the rules for the model: enough to plan memory or to run weights without data.
void check_model(const Config& config, const Origins& origins = {});

// Only the rules for data and objective: enough to look at samples without a model.
void check_objective(const Config& config, const Origins& origins = {});

// Every key with its value, in the order of the tables; with origins, each line ends in a comment that names it.
std::string to_yaml(const Config& config, const Origins* origins = nullptr);

// A key that differs between a checkpoint's configuration and the one it is resumed with.
struct ConfigChange {
  std::string key, saved, now;
  bool allowed = true;
  std::string reason;  // why not, where it is refused
};
std::vector<ConfigChange> compare_for_resume(const Config& saved, const Config& now);

// Throws ConfigError with a line for each refused change; the others are for the caller to log.
void refuse_changes(const std::vector<ConfigChange>& changes, const Origins& origins = {});

// The presets' names, and where they were found; see docs/config.md for the search order.
std::vector<std::string> preset_names();

// What `mixtape config --explain KEY` and docs/config.md show.
std::string explain_key(std::string_view key);
std::string config_markdown();

}  // namespace mixtape
