// Training under mpirun, oversubscribed: the same run on any number of ranks, and an end of all when one fails.
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <regex>
#include <set>
#include <thread>

#include "core/base/error.h"
#include "tests/end_to_end/process.h"

namespace mixtape {
namespace {

using namespace std::chrono_literals;
namespace fs = std::filesystem;

// About 240,000 parameters: four chunks of 64 Ki, so that each of four ranks has a shard.
const char* const tiny = R"(
run: {name: tiny}
model: {n_layers: 1, d_model: 128, n_heads: 4, vocab_size: 257, max_positions: 64, dropout: 0.1, attention_dropout: 0.1}
data:
  tokenizer: bytes
  sources: [{name: text, path: shards}]
  validation_split: 0.1
  seq_length: 32
train: {micro_batch_size: 1, global_batch_size: 8, max_steps: 12}
optimizer: {lr: 3.0e-3}
precision: {mode: bf16}
schedule: {warmup_steps: 3}
eval: {interval: 6, tokens: 500}
checkpoint: {interval: 4, keep_last: 9}
logging: {interval: 1, sample_interval: 6, sample_tokens: 8, sample_prompts: ["The "]}
determinism: strict
runtime: {threads: 1}
)";

bool has_mpirun() { return std::system("mpirun --version >/dev/null 2>&1") == 0; }

class Distributed : public testing::Test {
 protected:
  void SetUp() override {
    if (!has_mpirun()) GTEST_SKIP() << "there is no mpirun here; scripts/install test installs it";
    space.write("text.txt", sample_text(120));
    space.write("tiny.yaml", tiny);
    const ProcessResult r = space.mixtape(
        {"data", "prepare", "--tokenizer", "bytes", "--separator", "%", "--output", "shards", "text.txt"});
    ASSERT_EQ(r.exit_code, 0) << r.err;
  }
  static std::vector<std::string> words(const std::string& run, const std::vector<std::string>& more) {
    std::vector<std::string> arguments{"train", "tiny.yaml", "run.name=" + run};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }
  // One rank is one process without MPI.
  ProcessResult train(int ranks, const std::string& run, const std::vector<std::string>& more = {}) const {
    return ranks == 1 ? space.mixtape(words(run, more)) : space.mpirun(ranks, words(run, more));
  }
  std::string state_at(const std::string& run, int step) const {
    const std::string at = fmt::format("runs/{}/checkpoints/step-{:08}/", run, step);
    const std::string weights = space.read(at + "model.safetensors");
    EXPECT_FALSE(weights.empty()) << run << " has no checkpoint of step " << step;
    return weights + space.read(at + "optimizer.safetensors");
  }
  // Of all steps and validations, as text: every digit.
  std::vector<std::string> losses(const std::string& run) const {
    const std::string metrics = space.read("runs/" + run + "/metrics.jsonl");
    static const std::regex loss("\"event\":\"(step|eval)\".*?\"loss\":([^,]*),");
    std::vector<std::string> found;
    for (std::sregex_iterator at(metrics.begin(), metrics.end(), loss), end; at != end; ++at)
      found.push_back((*at)[1].str() + " " + (*at)[2].str());
    return found;
  }
  Workspace space;
};

// The processes that mpirun has started.
std::vector<int> children_of(int parent) {
  std::vector<int> found;
  for (const auto& entry : fs::directory_iterator("/proc")) {
    std::ifstream stat(entry.path() / "stat");
    int pid = 0, ppid = 0;
    std::string name, state;
    if (stat >> pid >> name >> state >> ppid && ppid == parent && name == "(mixtape)") found.push_back(pid);
  }
  return found;
}

std::string variable_of(int pid, const std::string& name) {
  std::ifstream in(fmt::format("/proc/{}/environ", pid));
  for (std::string line; std::getline(in, line, '\0');)
    if (line.starts_with(name + "=")) return line.substr(name.size() + 1);
  return "";
}

int process_of_rank(int mpirun, int rank) {
  for (const int pid : children_of(mpirun))
    if (variable_of(pid, "OMPI_COMM_WORLD_RANK") == std::to_string(rank)) return pid;
  return 0;
}

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

// Whatever ends or stops one of the ranks, the job ends, in time, with an error.
struct Failure {
  int exit_code;
  double seconds;
  std::string output;
};

class Failing : public Distributed {
 protected:
  Failure after_signal_to_rank_1(int signal, const std::vector<std::string>& more) const {
    std::vector<std::string> arguments = words(
        "failing", {"train.max_steps=100000", "checkpoint.interval=0", "eval.interval=0", "logging.sample_interval=0"});
    arguments.insert(arguments.end(), more.begin(), more.end());
    const int pid = space.start_mpirun(4, arguments);
    while (space.read("runs/failing/metrics.jsonl").find("\"step\":3,") == std::string::npos)
      std::this_thread::sleep_for(10ms);
    const auto begin = std::chrono::steady_clock::now();
    kill(process_of_rank(pid, 1), signal);
    const int code = Workspace::wait(pid);
    return {code, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count(),
            space.background_output()};
  }
};

TEST_F(Failing, AKilledRankEndsTheJob) {
  const Failure f = after_signal_to_rank_1(SIGKILL, {});
  EXPECT_NE(f.exit_code, 0);
  EXPECT_NE(f.exit_code, 75);
  EXPECT_LT(f.seconds, 30);
  EXPECT_NE(f.output.find("rank 1"), std::string::npos) << f.output;  // mpirun says so
}

TEST_F(Failing, AStoppedRankEndsTheJobWithinTheTimeout) {
  const Failure f = after_signal_to_rank_1(SIGSTOP, {"parallel.timeout_seconds=3"});
  EXPECT_EQ(f.exit_code, 1) << f.output;
  EXPECT_LT(f.seconds, 30);
  // Those that wait say so, and in which step. The one that stood still may wake before it is ended, and says that.
  static const std::regex waits(
      "mixtape: rank ([023]) of 4: no progress for [0-9]+ s in: [a-z ]+, step [0-9]+, where it "
      "waits for the other ranks");
  EXPECT_TRUE(std::regex_search(f.output, waits)) << f.output;
  EXPECT_EQ(f.output.find("rank 1 of 4: no progress"), std::string::npos) << f.output;
}

TEST_F(Failing, AThrowingRankEndsTheJobAndSaysWhere) {
  // Rank 1 has other data, whose second half is not there.
  fs::create_directories(space.path() / "other");
  fs::copy(space.path() / "shards", space.path() / "other/shards", fs::copy_options::recursive);
  space.write("other/tiny.yaml", tiny);
  for (const auto& entry : fs::recursive_directory_iterator(space.path() / "other/shards"))
    if (entry.is_regular_file() && entry.path().extension() != ".json")
      fs::resize_file(entry.path(), fs::file_size(entry.path()) / 2);
  const std::vector<std::string> arguments = words("failing", {});
  std::vector<std::string> two = arguments;
  two.insert(two.end(), {":", "-np", "1", "-wdir", (space.path() / "other").string(), MIXTAPE_BINARY});
  two.insert(two.end(), arguments.begin(), arguments.end());
  const ProcessResult r = space.mpirun(1, two);
  EXPECT_EQ(r.exit_code, int(Exit::data)) << r.err;
  EXPECT_NE(r.err.find("mixtape: rank 1 of 2, start, step 0: "), std::string::npos) << r.err;
}

// Two processes; one has a fault in its environment. A validation and a checkpoint after step 2.
class Faulty : public Distributed {
 protected:
  ProcessResult with_fault(int rank, const std::string& fault, const std::vector<std::string>& more) const {
    const std::string name = fmt::format("fault{}", runs_++);
    std::vector<std::string> all{"eval.interval=2", "checkpoint.interval=2", "logging.sample_interval=2"};
    all.insert(all.end(), more.begin(), more.end());
    const std::vector<std::string> arguments = words(name, all), faulty{"-x", "MIXTAPE_FAULT=" + fault};
    std::vector<std::string> two = arguments;
    two.insert(two.end(), {":", "-np", "1"});
    if (rank == 1) two.insert(two.end(), faulty.begin(), faulty.end());
    two.push_back(MIXTAPE_BINARY);
    two.insert(two.end(), arguments.begin(), arguments.end());
    return space.mpirun(1, two, rank == 0 ? faulty : std::vector<std::string>{});
  }
  mutable int runs_ = 0;
};

TEST_F(Faulty, ARankThatThrowsInAnyPhaseEndsTheJobAndSaysWhere) {
  const struct {
    int rank;
    const char* phase;
    const char* stage;
  } cases[] = {{1, "meeting before a step", "0"},
               {0, "data", "1"},
               {1, "exchange of target counts", "0"},
               {1, "forward and backward", "0"},
               {0, "forward and backward", "3"},
               {1, "sum of gradients over ranks", "2"},
               {0, "gather of weights", "3"},
               {1, "exchange of the gradients' norm", "1"},
               {1, "exchange of losses", "0"},
               {0, "exchange of updated weights", "1"},
               {0, "validation", "0"},
               {1, "validation", "3"},
               {0, "samples", "2"},
               {1, "checkpoint", "1"},
               {0, "checkpoint", "3"}};
  for (const auto& c : cases) {
    const ProcessResult r =
        with_fault(c.rank, fmt::format("throw 2 {}", c.phase), {fmt::format("parallel.zero_stage={}", c.stage)});
    EXPECT_EQ(r.exit_code, int(Exit::failure)) << c.phase << r.err;
    EXPECT_NE(r.err.find(fmt::format("mixtape: rank {} of 2, {}, step 2: as MIXTAPE_FAULT asks", c.rank, c.phase)),
              std::string::npos)
        << c.phase << r.err;
  }
}

TEST_F(Faulty, ARankThatHangsInComputingEndsTheJobAndSaysWhere) {
  for (const char* stage : {"0", "3"}) {
    const auto begin = std::chrono::steady_clock::now();
    const ProcessResult r = with_fault(1, "hang 2 forward and backward",
                                       {"parallel.timeout_seconds=2", fmt::format("parallel.zero_stage={}", stage)});
    EXPECT_LT(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count(), 30);
    EXPECT_EQ(r.exit_code, int(Exit::failure)) << r.err;
    static const std::regex culprit(
        "mixtape: rank 1 of 2: no progress for [0-9]+ s in: forward and backward, step 2; parallel.timeout_seconds "
        "ends the job");
    EXPECT_TRUE(std::regex_search(r.err, culprit)) << r.err;
  }
}

TEST_F(Failing, AnErrorOfAllIsSaidOnce) {
  const ProcessResult r = train(4, "failing", {"train.global_batch_size=6"});
  EXPECT_EQ(r.exit_code, int(Exit::config)) << r.err;
  const size_t at = r.err.find("train.global_batch_size");
  ASSERT_NE(at, r.err.npos) << r.err;
  EXPECT_EQ(r.err.find("train.global_batch_size", r.err.find('\n', at)), r.err.npos) << r.err;
  EXPECT_EQ(train(3, "failing", {"train.global_batch_size=6"}).exit_code, int(Exit::config)) << "strict, 3 ranks";
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
