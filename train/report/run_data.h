// A run directory read back for a report. Nothing here trusts what it reads: files may be missing, torn or hostile.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "train/report/metrics.h"

namespace mixtape {

struct Series {
  std::vector<double> step, value;  // equally long; steps never decrease; values may be NaN
};

// Something that happened once: a skip, a checkpoint, a resume, a warning, a stop.
struct RunEvent {
  std::string kind;
  int64_t step = 0;
  double time = 0;
  std::string text;
};

struct RunData {
  std::string name;
  std::filesystem::path path;
  StartEvent start;
  bool has_start = false;
  std::string status;  // "finished", "stopped: ...", "running", "killed", "no steps yet"
  Series loss, validation_loss, lr, grad_norm, tokens_per_second, loss_scale, memory_bytes, data_wait_share;
  std::vector<std::pair<std::string, Series>> source_losses;  // validation of each source of a mixture, at most 8
  std::vector<RunEvent> events;
  std::vector<SampleEvent> samples;
  std::vector<SourceShare> sources;  // the last that were logged
  int64_t last_step = 0, last_tokens = 0, skipped_steps = 0, unreadable_lines = 0;
  double first_time = 0, last_time = 0, training_seconds = 0;
  std::string config_yaml;                                       // config.resolved.yaml as text
  std::map<std::string, std::string> config;                     // the same, flat: "model.d_model" -> "768"
  std::vector<std::pair<std::string, std::string>> environment;  // env.json, flat
};

// Throws ConfigError when `path` is not a directory or holds neither metrics.jsonl nor config.resolved.yaml.
RunData read_run(const std::filesystem::path& path);

// Keys of the configuration whose values differ between runs, with each run's value ("" where it has none).
std::vector<std::pair<std::string, std::vector<std::string>>> config_differences(const std::vector<RunData>& runs);

}  // namespace mixtape
