#include "train/report/reporter.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/report/temporary.h"
#include "train/report/run_data.h"

namespace mixtape {
namespace {

struct Silent {
  std::FILE* null = std::fopen("/dev/null", "w");
  Console console{{.out = null, .err = null, .terminal = false, .colour = false}};
  ~Silent() { std::fclose(null); }
};

TEST(Reporter, AStoppedAndResumedRunReadsBackAsOne) {
  const TemporaryFolder folder;
  Silent silent;
  const auto part = [&](int64_t from, int64_t to, const char* reason) {
    const RunDirectory run(folder / "run");
    Reporter reporter(run, {.interval = 2, .max_steps = 10}, {from, from}, silent.console);
    reporter.start({.step = from, .name = "run", .max_steps = 10});
    if (from > 0) reporter.resume({.step = from, .path = "checkpoints/step-4"});
    for (int64_t i = from + 1; i <= to; ++i)
      reporter.step({.step = i, .attempt = i, .tokens = 8 * i, .loss = 9.0 - double(i)});
    reporter.eval({.step = to, .loss = 2, .perplexity = 7.39, .best = true});
    reporter.stop({.step = to, .reason = reason});
  };
  part(0, 6, "signal");
  part(4, 10, "finished");
  const RunData run = read_run(folder / "run");
  EXPECT_EQ(run.loss.step, (std::vector<double>{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}));
  EXPECT_EQ(run.validation_loss.step, (std::vector<double>{10}));
  EXPECT_EQ(run.status, "finished");
  EXPECT_EQ(run.unreadable_lines, 0);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder / "run/tensorboard"), {}), 2);
  const std::string log = read(folder / "run/train.log");
  EXPECT_NE(log.find("step  2/10  loss  7.0000"), std::string::npos) << log;
  EXPECT_EQ(log.find("step  3/10"), std::string::npos);
  EXPECT_NE(log.find("resumed at step 4 from checkpoints/step-4"), std::string::npos);
}

TEST(Reporter, ASkippedStepIsAWarningAndNoPointOfTheLoss) {
  const TemporaryFolder folder;
  Silent silent;
  const RunDirectory run(folder / "run");
  Reporter reporter(run, {.max_steps = 10}, {}, silent.console);
  reporter.step({.step = 1, .attempt = 1, .loss = 3});
  reporter.step({.step = 1, .attempt = 2, .loss = NAN, .grad_norm = INFINITY, .loss_scale = 1024, .skipped = true});
  const RunData data = read_run(folder / "run");
  EXPECT_EQ(data.loss.step.size(), 1u);
  EXPECT_EQ(data.skipped_steps, 1);
  EXPECT_EQ(data.status, "running");
  EXPECT_EQ(data.events.at(0).text, "step skipped: loss nan, gradient norm inf, loss scale 1024");
  EXPECT_NE(read(run.log_file()).find("warning: step 2 skipped: loss nan"), std::string::npos);
}

// The run writes its report itself, before it lets go of its directory.
TEST(Reporter, AFinishedRunIsNotRunning) {
  const TemporaryFolder folder;
  Silent silent;
  const RunDirectory run(folder / "run");
  Reporter reporter(run, {.max_steps = 1}, {}, silent.console);
  reporter.start({.name = "run"});
  EXPECT_EQ(read_run(folder / "run").status, "running");
  reporter.step({.step = 1, .attempt = 1, .loss = 3});
  reporter.stop({1, 100, "finished", 2.0});
  EXPECT_EQ(read_run(folder / "run").status, "finished");
  reporter.start({.step = 1, .name = "run"});
  EXPECT_EQ(read_run(folder / "run").status, "running");
}

TEST(Reporter, TimeLeftIsUnknownAtFirst) {
  const TemporaryFolder folder;
  Silent silent;
  const RunDirectory run(folder / "run");
  Reporter reporter(run, {.max_steps = 10}, {}, silent.console);
  EXPECT_LT(reporter.eta_seconds(), 0);
  for (int i = 1; i <= 10; ++i) reporter.step({.step = i, .attempt = i});
  EXPECT_EQ(reporter.eta_seconds(), 0);
}

}  // namespace
}  // namespace mixtape
