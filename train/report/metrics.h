// What a training run says about itself, as data, and its log: metrics.jsonl, one JSON object a line.
//
// Every line has `event`, `step`, `tokens` and `time` (seconds since 1970). `step` counts optimizer updates done, so
// the first update is logged as step 1; `attempt` counts steps tried, the skipped ones included. JSON has no NaN: a
// number that is not finite is written as null, and `nonfinite` names it: {"loss":null,"nonfinite":{"loss":"nan"}}.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "train/objective/scorer.h"

namespace mixtape {

// How much of what was trained on came from a source, and how often the source has been read.
struct SourceShare {
  std::string name;
  double share = 0;   // of the tokens since the start of the run, 0 to 1
  double epochs = 0;  // passes over the source
};

// Peak bytes by category, as planned (core/memory.h).
struct MemoryTable {
  int64_t parameters = 0, gradients = 0, optimizer = 0, activations = 0, workspace = 0;
  int64_t total() const { return parameters + gradients + optimizer + activations + workspace; }
};

// A run begins. `step` and `tokens` are 0 unless it continues (then a ResumeEvent follows).
struct StartEvent {
  int64_t step = 0, tokens = 0;
  std::string name;             // of the run
  std::string command;          // what was typed, quoted for a shell
  std::string device;           // "cpu", "cuda:0"
  std::string precision;        // "fp32", "bf16", ...
  int64_t parameters = 0;       // of the model
  int64_t learning = 0;         // those of them that change; 0: all
  double flops_per_token = 0;   // of the model, forward and backward
  int64_t tokens_per_step = 0;  // capacity of a global step
  int64_t max_tokens = 0;       // of the whole run
  int64_t max_steps = 0;
  int world_size = 1, threads = 1;
  MemoryTable memory;
};

// One step. A skipped step (non-finite gradients) is logged as event "skip": `step` has not moved, `attempt` has.
struct StepMetrics {
  int64_t step = 0, attempt = 0;
  int64_t tokens = 0;    // trained on since the start of the run
  double loss = 0;       // mean over the targets of the global step, nats
  double grad_norm = 0;  // before clipping
  double lr = 0;
  double loss_scale = 1;  // written where it is not 1
  double tokens_per_second = 0;
  double step_seconds = 0;
  double data_wait_share = 0;  // of the step's time, spent waiting for the loader
  double model_flops_per_second = 0;
  int64_t memory_bytes = 0;  // peak, all categories
  bool skipped = false;
  std::vector<SourceShare> sources;  // empty on most lines
};

struct SourceLoss {
  std::string name;
  double loss = 0;
};

struct EvalMetrics {
  int64_t step = 0, tokens = 0;
  double loss = 0, perplexity = 0;
  std::optional<double> bits_per_byte;
  std::vector<Score> scores;        // accuracy, F1 and the like, by what the objective measures
  std::vector<SourceLoss> sources;  // of a mixture, each source's
  int64_t eval_tokens = 0;
  double seconds = 0;
  bool best = false;  // the lowest loss of the run so far
};

struct CheckpointEvent {
  int64_t step = 0, tokens = 0;
  std::string path;
  int64_t bytes = 0;
  double seconds = 0;
  std::string error;  // why the save failed; empty when it did not
};

struct ResumeEvent {
  int64_t step = 0, tokens = 0;
  std::string path;
};

struct StopEvent {
  int64_t step = 0, tokens = 0;
  std::string reason;  // "finished", "signal", or the text of an error
  double seconds = 0;  // since the process started training
};

struct SampleEvent {
  int64_t step = 0, tokens = 0;
  std::string prompt, text;
};

struct WarningEvent {
  int64_t step = 0, tokens = 0;
  std::string text;
};

// Each event as the line it becomes, with the present `time`, without the newline.
std::string json_line(const StartEvent&);
std::string json_line(const StepMetrics&);
std::string json_line(const EvalMetrics&);
std::string json_line(const CheckpointEvent&);
std::string json_line(const ResumeEvent&);
std::string json_line(const StopEvent&);
std::string json_line(const SampleEvent&);
std::string json_line(const WarningEvent&);

// Where a run goes on; {0, 0} is a fresh start.
struct ResumePoint {
  int64_t step = 0, attempt = 0;
};

// Appends lines to metrics.jsonl; each is handed to the system in one write, so a killed process loses none and tears
// at most the last. Not safe to use from two threads.
class MetricsLog {
 public:
  // Opens or creates `file`. A torn last line is cut, and so are the lines of steps and attempts after `from`, which
  // the run is about to take again; a fresh start empties the file. The old content is replaced only when the new is
  // safe on disk. Throws Error when the file cannot be opened or written.
  MetricsLog(std::filesystem::path file, ResumePoint from);
  ~MetricsLog();
  MetricsLog(const MetricsLog&) = delete;
  MetricsLog& operator=(const MetricsLog&) = delete;

  template <class Event>
  bool write(const Event& event) {
    return write_line(json_line(event));
  }

  // False when the line could not be written (a full disk): what was written of it is taken back, training goes on.
  bool write_line(std::string line);
  int64_t lost_lines() const { return lost_lines_; }

 private:
  std::filesystem::path file_;
  int fd_ = -1;
  int64_t lost_lines_ = 0;
};

}  // namespace mixtape
