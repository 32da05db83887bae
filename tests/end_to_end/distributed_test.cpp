// Training under mpirun, oversubscribed: the same run on any number of ranks. failing_ranks_test.cpp: what ends it.
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <set>
#include <sstream>
#include <thread>

#include "tests/end_to_end/distributed.h"

namespace mixtape {
namespace {

using namespace std::chrono_literals;
namespace fs = std::filesystem;

// A variable of the environment of programs that are started while it lives.
struct Variable {
  Variable(const char* name, const char* value) : name(name) {
    if (const char* old = std::getenv(name)) before = old;
    setenv(name, value, 1);
  }
  ~Variable() { before ? setenv(name, before->c_str(), 1) : unsetenv(name); }
  const char* name;
  std::optional<std::string> before;
};

TEST_F(Distributed, StrictModeGivesTheSameBitsOnAnyNumberOfRanksAtAnyStage) {
  ASSERT_EQ(train(1, "one").exit_code, 0);
  const struct {
    int ranks;
    const char* setting;
  } runs[] = {{2, "parallel.zero_stage=0"}, {2, "parallel.zero_stage=3"}, {4, "parallel.zero_stage=1"},
              {4, "parallel.zero_stage=2"}, {4, "parallel.zero_stage=3"}, {8, "parallel.zero_stage=1"}};
  for (const auto& r : runs) {
    const std::string name = fmt::format("of{}-{}", r.ranks, r.setting);
    const ProcessResult result = train(r.ranks, name, {r.setting});
    ASSERT_EQ(result.exit_code, 0) << result.err;
    for (const int step : {4, 12}) EXPECT_EQ(state_at(name, step), state_at("one", step)) << r.ranks << " ranks";
    EXPECT_EQ(losses(name), losses("one"));
    EXPECT_EQ(losses(name).size(), 14u);
    // One speaks for all.
    const size_t line = result.out.find("step  7/12");
    EXPECT_NE(line, result.out.npos) << result.out;
    EXPECT_EQ(result.out.find("step  7/12", line + 1), result.out.npos) << result.out;
    EXPECT_FALSE(space.read("runs/" + name + "/model/model.safetensors").empty());
  }
}

TEST_F(Distributed, FastModeLearnsTheSame) {
  const std::vector<std::string> fast{"determinism=fast", "train.global_batch_size=6", "model.dropout=0"};
  ASSERT_EQ(train(1, "one", fast).exit_code, 0);
  for (const int ranks : {2, 3}) {
    const std::string name = fmt::format("of{}", ranks);
    const ProcessResult r = train(ranks, name, fast);
    ASSERT_EQ(r.exit_code, 0) << r.err;
    ASSERT_EQ(losses(name).size(), losses("one").size());
    for (size_t i = 0; i < losses("one").size(); ++i)
      EXPECT_NEAR(std::stod(losses(name)[i].substr(5)), std::stod(losses("one")[i].substr(5)), 0.02) << i;
    // Reproducible for one number of ranks, stopped or not: choices of libraries are kept with the run.
    if (ranks != 2) continue;
    std::vector<std::string> from = fast;
    from.push_back("run.resume=runs/of2/checkpoints/step-00000004");
    ASSERT_EQ(train(2, "again", from).exit_code, 0);
    EXPECT_EQ(state_at("again", 12), state_at("of2", 12));
  }
}

TEST_F(Distributed, GoesOnAtAnyOtherNumberOfRanksAndStage) {
  ASSERT_EQ(train(1, "straight").exit_code, 0);
  for (const int before : {1, 2, 4})
    for (const int after : {1, 2, 4}) {
      if (before == after) continue;
      const std::string name = fmt::format("from{}to{}", before, after);
      const int stage = before == 1 ? 1 : after == 1 ? 3 : 2;
      ASSERT_EQ(train(before, name, {"train.stop_at_step=6", fmt::format("parallel.zero_stage={}", stage)}).exit_code,
                0)
          << name;
      const ProcessResult r = train(after, name,
                                    {fmt::format("parallel.zero_stage={}", after == 4   ? 3
                                                                           : after == 2 ? 1
                                                                                        : 0)});
      ASSERT_EQ(r.exit_code, 0) << name << r.err;
      EXPECT_EQ(state_at(name, 12), state_at("straight", 12)) << name;
      EXPECT_EQ(losses(name), losses("straight")) << name;
    }
}

// Step s is made of samples 8 (s - 1) to 8 s - 1, by the log of the processes that did it: two of which one was killed,
// and others, from the last checkpoint on.
TEST_F(Distributed, NoSampleIsRepeatedOrLeftOut) {
  std::map<int64_t, std::vector<uint64_t>> steps;  // as the last run did them
  int runs = 0;
  const auto run = [&](const std::function<void()>& body) {
    const std::string log = fmt::format("samples{}", runs++);
    {
      const Variable variable("MIXTAPE_SAMPLE_LOG", log.c_str());
      body();
    }
    std::map<int64_t, std::vector<uint64_t>> of_run;
    for (int rank = 0; rank < 4; ++rank) {
      std::istringstream lines(space.read(fmt::format("{}.{}", log, rank)));
      for (std::string line; std::getline(lines, line);) {
        std::istringstream numbers(line);
        int64_t step = 0, micro_batch = 0;
        numbers >> step >> micro_batch;
        for (uint64_t sample; numbers >> sample;) of_run[step].push_back(sample);
      }
    }
    for (auto& [step, samples] : of_run) steps[step] = std::move(samples);
  };
  const std::vector<std::string> quiet{"train.max_steps=100000", "eval.interval=0", "logging.sample_interval=0"};
  run([&] {
    const int pid = space.start_mpirun(2, words("a", quiet));
    while (space.read("runs/a/metrics.jsonl").find("\"step\":6,") == std::string::npos)
      std::this_thread::sleep_for(10ms);
    kill(process_of_rank(pid, 1), SIGKILL);
    EXPECT_NE(Workspace::wait(pid), 0);
  });
  int64_t end = steps.rbegin()->first;
  for (const auto& [ranks, stage] : {std::pair{4, 3}, {1, 0}, {4, 2}, {2, 1}}) {
    end += 3;
    std::vector<std::string> more = quiet;
    more.push_back(fmt::format("train.stop_at_step={}", end));
    more.push_back(fmt::format("parallel.zero_stage={}", stage));
    run([&] { ASSERT_EQ(train(ranks, "a", more).exit_code, 0) << ranks; });
  }
  ASSERT_EQ(int64_t(steps.size()), end);
  for (auto& [step, samples] : steps) {
    std::ranges::sort(samples);
    std::vector<uint64_t> expected(8);
    std::iota(expected.begin(), expected.end(), uint64_t(8 * (step - 1)));
    EXPECT_EQ(samples, expected) << "step " << step;
  }
}

TEST_F(Distributed, ASignalToOneRankOrToMpirunSavesOnAll) {
  ASSERT_EQ(train(1, "straight").exit_code, 0);
  const std::vector<std::string> quiet{"checkpoint.interval=0", "eval.interval=0", "logging.sample_interval=0",
                                       "train.max_steps=4000", "parallel.zero_stage=1"};
  const struct {
    const char* name;
    int signal, rank;  // -1: mpirun
  } cases[] = {{"usr1", SIGUSR1, -1}, {"term", SIGTERM, 1}, {"usr1-to-last", SIGUSR1, 1}};
  for (const auto& c : cases) {
    const std::string name = c.name;
    const int pid = space.start_mpirun(2, words(name, quiet));
    while (space.read("runs/" + name + "/metrics.jsonl").find("\"event\":\"step\"") == std::string::npos)
      std::this_thread::sleep_for(10ms);
    kill(c.rank < 0 ? pid : process_of_rank(pid, c.rank), c.signal);
    EXPECT_EQ(Workspace::wait(pid), 75) << name << space.background_output();
    const std::string metrics = space.read("runs/" + name + "/metrics.jsonl");
    EXPECT_NE(metrics.find("\"reason\":\"signal\""), std::string::npos) << name;
    EXPECT_FALSE(fs::is_empty(space.path() / "runs" / name / "checkpoints")) << name;
    if (c.rank >= 0) continue;
    // The same command goes on; here to where the first run ended, on other ranks.
    std::vector<std::string> on = quiet;
    on.push_back("train.stop_at_step=" + std::to_string(std::count(metrics.begin(), metrics.end(), '\n') + 5));
    EXPECT_EQ(train(4, name, on).exit_code, 0) << name;
  }
}

TEST_F(Distributed, AnUnlikeConfigurationIsRefused) {
  const std::vector<std::string> arguments = words("a", {});
  std::vector<std::string> two = arguments;
  two.insert(two.end(), {":", "-np", "1", MIXTAPE_BINARY});
  two.insert(two.end(), arguments.begin(), arguments.end());
  two.push_back("optimizer.lr=1e-4");
  const ProcessResult r = space.mpirun(1, two);
  EXPECT_EQ(r.exit_code, int(Exit::config)) << r.err;
  EXPECT_NE(r.err.find("the configuration differs from rank 0's"), std::string::npos) << r.err;
}

TEST_F(Distributed, LaunchersThatDoNotBringRanksTogetherAreSeen) {
  {
    const Variable procid("SLURM_PROCID", "1"), tasks("SLURM_STEP_NUM_TASKS", "4");
    const ProcessResult r = space.mixtape(words("a", {}));
    EXPECT_EQ(r.exit_code, int(Exit::config)) << r.err;
    EXPECT_NE(r.err.find("srun has started 4 processes without telling them of each other; use srun --mpi=pmix"),
              std::string::npos)
        << r.err;
  }
  // As if the mpirun of another MPI had started two, of which each finds itself alone.
  const Variable size("PMI_SIZE", "2");
  const ProcessResult r = space.mixtape(words("a", {}));
  EXPECT_EQ(r.exit_code, int(Exit::config)) << r.err;
  EXPECT_NE(r.err.find("started as one of 2 processes, but the MPI that"), std::string::npos) << r.err;
}

// The same as under mpirun, with the run's own exit codes; what is said of the run is the command that goes on.
TEST_F(Distributed, OneCommandStartsAProcessForEachDevice) {
  const auto devices = [&](const std::string& run, const std::vector<std::string>& more = {}) {
    std::vector<std::string> arguments = words(run, {"--devices", "2", "parallel.zero_stage=1"});
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  };
  ASSERT_EQ(train(1, "one").exit_code, 0);
  const ProcessResult two = space.mixtape(devices("two"));
  ASSERT_EQ(two.exit_code, 0) << two.err;
  EXPECT_EQ(state_at("two", 12), state_at("one", 12));
  EXPECT_NE(two.out.find("2 x cpu"), std::string::npos) << two.out;
  EXPECT_NE(space.read("runs/two/env.json").find("--devices"), std::string::npos);

  EXPECT_EQ(space.mixtape(devices("a", {"train.max_steps=none"})).exit_code, int(Exit::config));
  EXPECT_EQ(space.mixtape(devices("a", {"data.sources=[{name: text, path: nowhere}]"})).exit_code, int(Exit::data));
  const ProcessResult other = space.mpirun(2, words("a", {"--devices", "4"}));
  EXPECT_EQ(other.exit_code, int(Exit::config));
  EXPECT_NE(other.err.find("--devices 4, but a launcher has started this process as one of 2"), std::string::npos)
      << other.err;
}

TEST_F(Distributed, OneCommandPassesSignalsOn) {
  for (const int signal : {SIGTERM, SIGUSR1}) {
    const std::string name = fmt::format("signal{}", signal);
    const int pid = space.start(words(name, {"--devices", "2", "train.max_steps=100000", "checkpoint.interval=0",
                                             "eval.interval=0", "logging.sample_interval=0"}));
    while (space.read("runs/" + name + "/metrics.jsonl").find("\"event\":\"step\"") == std::string::npos)
      std::this_thread::sleep_for(10ms);
    kill(pid, signal);
    EXPECT_EQ(Workspace::wait(pid), 75) << name << space.background_output();
    EXPECT_FALSE(fs::is_empty(space.path() / "runs" / name / "checkpoints")) << name;
  }
}

TEST_F(Distributed, OneCommandNeedsMpirun) {
  const Variable nowhere("PATH", "/nowhere");
  const ProcessResult r = space.mixtape(words("a", {"--devices", "2"}));
  EXPECT_EQ(r.exit_code, int(Exit::config));
  EXPECT_NE(r.err.find("--devices 2 starts mpirun, but there is none on the PATH"), std::string::npos) << r.err;
}

TEST_F(Distributed, BenchCommTimesBesideMpisOwnCalls) {
  const ProcessResult r =
      space.mixtape({"bench", "comm", "--devices", "2", "--samples", "2", "--json", "--size", "4KiB", "1MiB"});
  ASSERT_EQ(r.exit_code, 0) << r.err;
  const auto bench = nlohmann::json::parse(r.out);
  EXPECT_EQ(bench["ranks"], 2);
  EXPECT_GT(bench["copy"], 0);
  std::set<std::string> seen;
  for (const auto& line : bench["collectives"]) {
    seen.insert(fmt::format("{} {}", line["collective"].get<std::string>(), line["bytes"].get<int64_t>()));
    EXPECT_GT(line["seconds"], 0);
    EXPECT_GT(line["raw_seconds"], 0);
    const double whole = line["collective"] == "all-reduce" ? 1 : 0.5;  // of two ranks
    EXPECT_EQ(line["moved_bytes"].get<double>(), whole * line["bytes"].get<double>());
  }
  EXPECT_EQ(seen, (std::set<std::string>{"all-gather 1048576", "all-gather 4096", "all-reduce 1048576",
                                         "all-reduce 4096", "reduce-scatter 1048576", "reduce-scatter 4096"}));
  const ProcessResult alone = space.mixtape({"bench", "comm"});
  EXPECT_EQ(alone.exit_code, int(Exit::config));
  EXPECT_NE(alone.err.find("bench comm: one process has nobody to talk to"), std::string::npos) << alone.err;
}

TEST_F(Distributed, APlanSaysWhatARankNeedsAndExchanges) {
  const auto plan = [&](const char* world, const char* setting) {
    return space.mixtape({"plan", "tiny.yaml", "--world", world, setting});
  };
  const ProcessResult r = plan("4", "parallel.zero_stage=1");
  ASSERT_EQ(r.exit_code, 0) << r.err;
  EXPECT_NE(r.out.find("Memory of each of 4 processes"), std::string::npos) << r.out;
  EXPECT_TRUE(std::regex_search(r.out, std::regex("master +184 KiB"))) << r.out;  // a quarter, in whole chunks
  EXPECT_TRUE(std::regex_search(r.out, std::regex("optimizer +368 KiB"))) << r.out;
  // 3/4 of four bytes, and of two, of 239,616 parameters and their padding.
  EXPECT_TRUE(std::regex_search(r.out, std::regex("gradients +706 KiB\n  weights +353 KiB"))) << r.out;
  EXPECT_EQ(plan("3", "seed=1").exit_code, int(Exit::config));
  // Of two micro-batches a rank: each sums gradients, and gathers weights twice.
  const ProcessResult three = space.mixtape({"plan", "tiny.yaml", "--world", "4", "parallel.zero_stage=3",
                                             "--flops-per-second", "1e9", "--bytes-per-second", "1e6"});
  EXPECT_TRUE(std::regex_search(three.out, std::regex("gradients +1.38 MiB\n  weights +1.38 MiB\n"))) << three.out;
  EXPECT_TRUE(std::regex_search(three.out, std::regex("a step of [0-9.]+ s, [0-9]+ % of it computing"))) << three.out;
}

TEST_F(Distributed, APlanNamesWaysToShareOutThatFit) {
  const ProcessResult r = space.mixtape(
      {"plan", "tiny.yaml", "--world", "4", "--fit", "5MiB", "--flops-per-second", "1e9", "--bytes-per-second", "1e6"});
  ASSERT_EQ(r.exit_code, 0) << r.err;
  EXPECT_NE(r.out.find("In 5.00 MiB of each of 4 processes, the fastest first:\n"), r.out.npos) << r.out;
  EXPECT_TRUE(std::regex_search(
      r.out, std::regex("parallel.zero_stage=3 memory.recompute=selective train.micro_batch_size=2: [0-9.]+ MiB, 1.38 "
                        "MiB exchanged in a step of [0-9.]+ s\n")))
      << r.out;
}

TEST_F(Distributed, BenchmarksRefuseWhatTheyWouldLeaveOut) {
  const auto refusal = [&](const std::vector<std::string>& command, const std::string& reason) {
    const ProcessResult r = space.mixtape(command);
    EXPECT_EQ(r.exit_code, int(Exit::config)) << r.out;
    EXPECT_NE(r.err.find(reason), r.err.npos) << r.err;
    EXPECT_EQ(std::count(r.err.begin(), r.err.end(), '\n'), 1) << r.err;
  };
  refusal({"bench", "train", "tiny.yaml", "parallel.zero_stage=1"}, "parallel: bench train is of one process");
  refusal({"bench", "train", "tiny.yaml", "parallel.tensor_parallel_size=2"}, "tensor_parallel_size 2 share out");
  refusal({"bench", "memory", "--preset", "gpt2", "--mode", "parallel.zero_stage=3"},
          "say among how many with --world");
  refusal({"bench", "memory", "--preset", "gpt2", "--world", "3", "--mode", "parallel.tensor_parallel_size=2"},
          "expected a divisor of the number of processes (3)");
  refusal({"bench", "memory", "--preset", "gpt2", "--world", "2", "--run"}, "keep one of --run and --world");
}

// Layers that two ranks share out: what one process trains, to other roundings; stopped and gone on with by any number.
TEST_F(Distributed, RanksShareOutLayers) {
  const std::string two = "parallel.tensor_parallel_size=2";
  const std::vector<std::string> plain{"precision.mode=fp32"};
  ASSERT_EQ(train(1, "one", plain).exit_code, 0);
  const auto near = [&](const std::string& name, double tolerance) {
    ASSERT_EQ(losses(name).size(), losses("one").size()) << name;
    for (size_t i = 0; i < losses("one").size(); ++i) {
      EXPECT_EQ(losses(name)[i].substr(0, 4), losses("one")[i].substr(0, 4));
      EXPECT_NEAR(std::stod(losses(name)[i].substr(5)), std::stod(losses("one")[i].substr(5)), tolerance) << name << i;
    }
  };
  for (const auto& [ranks, stage] : {std::pair{2, 0}, {4, 0}, {4, 1}, {4, 2}, {4, 3}}) {
    const std::string name = fmt::format("of{}-{}", ranks, stage);
    const ProcessResult r = train(ranks, name, {plain[0], two, fmt::format("parallel.zero_stage={}", stage)});
    ASSERT_EQ(r.exit_code, 0) << name << r.err;
    near(name, 2e-4);
    // In strict mode the same bits on any number of groups.
    if (ranks == 4) {
      EXPECT_EQ(state_at(name, 12), state_at("of2-0", 12)) << name;
    }
    EXPECT_FALSE(space.read("runs/" + name + "/model/model.safetensors").empty());
  }
  const std::string samples = space.read("runs/of2-0/metrics.jsonl");
  EXPECT_NE(samples.find("\"event\":\"sample\""), samples.npos) << samples;

  for (const auto& [before, after] : {std::pair{1, 2}, {2, 1}, {2, 4}, {4, 1}}) {
    const std::string name = fmt::format("from{}to{}", before, after);
    const auto settings = [&](int ranks) {
      std::vector<std::string> more = plain;
      if (ranks > 1) more.push_back(two);
      if (ranks > 2) more.push_back("parallel.zero_stage=3");
      return more;
    };
    std::vector<std::string> first = settings(before);
    first.push_back("train.stop_at_step=6");
    ASSERT_EQ(train(before, name, first).exit_code, 0) << name;
    const ProcessResult r = train(after, name, settings(after));
    ASSERT_EQ(r.exit_code, 0) << name << r.err;
    near(name, 2e-4);
  }

  const ProcessResult alone = space.mixtape(words("alone", {two}));
  EXPECT_EQ(alone.exit_code, int(Exit::config));
  EXPECT_NE(alone.err.find("expected a divisor of the number of processes (1)"), std::string::npos) << alone.err;
  const ProcessResult three = train(3, "three", {two});
  EXPECT_NE(three.err.find("expected a divisor of the number of processes (3)"), std::string::npos) << three.err;
}

TEST_F(Distributed, APlanKnowsSharedOutLayers) {
  const auto plan = [&](const char* world, const char* setting) {
    return space.mixtape({"plan", "tiny.yaml", "--world", world, setting});
  };
  const ProcessResult r = plan("2", "parallel.tensor_parallel_size=2");
  ASSERT_EQ(r.exit_code, 0) << r.err;
  // Of eight micro-batches half of: 32 rows of 128 numbers, gathered 8 times in two bytes, 5 times summed for parts of
  // it in four, once for all in eight; and gradients of three norms in eight.
  EXPECT_TRUE(std::regex_search(r.out, std::regex("gradients +0 B\n  layers +728 KiB\n"))) << r.out;
  EXPECT_TRUE(std::regex_search(r.out, std::regex("Parameters +239,616"))) << r.out;
  EXPECT_TRUE(std::regex_search(plan("4", "parallel.tensor_parallel_size=2").out, std::regex("layers +364 KiB\n")));
}

// A run of one process neither loads MPI nor needs it.
TEST_F(Distributed, OneProcessLoadsNoMpi) {
  const int pid = space.start(words("alone", {"train.max_steps=100000", "checkpoint.interval=0", "eval.interval=0"}));
  while (space.read("runs/alone/metrics.jsonl").find("\"event\":\"step\"") == std::string::npos)
    std::this_thread::sleep_for(10ms);
  std::ifstream maps(fmt::format("/proc/{}/maps", pid));
  const std::string loaded((std::istreambuf_iterator<char>(maps)), {});
  kill(pid, SIGKILL);
  Workspace::wait(pid);
  EXPECT_NE(loaded.find("libdnnl"), std::string::npos);
  EXPECT_EQ(loaded.find("libmpi"), std::string::npos);
}

}  // namespace
}  // namespace mixtape
