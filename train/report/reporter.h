// One event to everywhere: metrics.jsonl, TensorBoard, the console and train.log. What the trainer talks to.
#pragma once

#include <deque>
#include <optional>
#include <string>
#include <utility>

#include "core/base/clock.h"
#include "train/report/console.h"
#include "train/report/metrics.h"
#include "train/report/run_directory.h"
#include "train/report/tensorboard.h"

namespace mixtape {

struct ReporterOptions {
  int64_t interval = 10;  // steps between lines of the console and train.log; metrics.jsonl gets every step
  bool tensorboard = true;
  int64_t max_steps = 0;
};

class Reporter {
 public:
  // `from` is where the run goes on, {0, 0} for a fresh start.
  Reporter(const RunDirectory& run, ReporterOptions options, ResumePoint from, Console& out = console());
  ~Reporter();

  void start(const StartEvent&);
  void step(const StepMetrics&);  // call it for every step, also the skipped ones
  void eval(const EvalMetrics&);
  void checkpoint(const CheckpointEvent&);
  void resume(const ResumeEvent&);
  void sample(const SampleEvent&);
  void warning(const WarningEvent&);
  void stop(const StopEvent&);
  // Seconds that the remaining steps will take at the recent speed (pauses for evaluation and saving included);
  // negative while unknown.
  double eta_seconds() const;

 private:
  template <class Event>
  void write(const Event&);
  void draw(const StepMetrics&);

  ReporterOptions options_;
  Console& console_;
  MetricsLog metrics_;
  std::optional<TensorBoardWriter> tensorboard_;
  std::string path_;
  std::deque<std::pair<Clock::time_point, int64_t>> recent_;  // when the last steps ended
};

}  // namespace mixtape
