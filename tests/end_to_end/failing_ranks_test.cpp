// A rank that dies, stops, throws or hangs under mpirun: the job ends, in time, and says where.
#include <signal.h>
#include <sys/resource.h>

#include <chrono>
#include <thread>

#include "tests/end_to_end/distributed.h"

namespace mixtape {
namespace {

using namespace std::chrono_literals;
namespace fs = std::filesystem;

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

// Rank 1 may write no longer, as where its disk is full: what could not be saved is said, training goes on, and the
// checkpoint before is whole; then there is room again.
TEST_F(Failing, ADiskThatFailsOnOneRankCostsASave) {
  for (const char* stage : {"0", "3"}) {
    const std::string name = fmt::format("disk{}", stage), checkpoints = "runs/" + name + "/checkpoints/";
    const int pid =
        space.start_mpirun(4, words(name, {"train.max_steps=100000", "checkpoint.interval=20", "eval.interval=0",
                                           "logging.sample_interval=0", fmt::format("parallel.zero_stage={}", stage)}));
    const auto metrics = [&] { return space.read("runs/" + name + "/metrics.jsonl"); };
    const auto wait_for = [&](const std::string& what) {
      while (metrics().find(what) == std::string::npos) std::this_thread::sleep_for(10ms);
    };
    wait_for("\"event\":\"checkpoint\"");
    const int rank_1 = process_of_rank(pid, 1);
    rlimit before{};
    const rlimit full{1000, RLIM_INFINITY};
    ASSERT_EQ(prlimit(rank_1, RLIMIT_FSIZE, &full, &before), 0);
    wait_for("rank 1 cannot write");
    const ProcessResult last = space.mixtape({"inspect", "checkpoint", "runs/" + name});
    EXPECT_EQ(last.exit_code, 0) << last.err;
    ASSERT_EQ(prlimit(rank_1, RLIMIT_FSIZE, &before, nullptr), 0);
    const size_t failed = metrics().rfind("rank 1 cannot write");
    while (metrics().find("\"event\":\"checkpoint\"", metrics().find('\n', failed)) == std::string::npos)
      std::this_thread::sleep_for(10ms);
    kill(pid, SIGUSR1);
    EXPECT_EQ(Workspace::wait(pid), 75) << space.background_output();
    const std::string said = space.background_output();
    EXPECT_NE(said.find("File too large"), std::string::npos) << said;
    for (const auto& entry : fs::directory_iterator(space.path() / checkpoints))
      EXPECT_EQ(entry.path().filename().string().find(".tmp"), std::string::npos) << entry.path();
  }
}

TEST_F(Failing, AThrowingRankEndsTheJobAndSaysWhere) {
  // Rank 1 has other data, whose second half is not there.
  fs::create_directories(space.path() / "other");
  fs::copy(space.path() / "shards", space.path() / "other/shards", fs::copy_options::recursive);
  space.write("other/tiny.yaml", distributed_config);
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

// Each phase, in the ranks and stages that have it.
constexpr struct {
  int rank;
  const char* phase;
  const char* stage;
} phases[] = {{1, "meeting before a step", "0"},
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

TEST_F(Faulty, ARankThatThrowsInAnyPhaseEndsTheJobAndSaysWhere) {
  for (const auto& c : phases) {
    const ProcessResult r =
        with_fault(c.rank, fmt::format("throw 2 {}", c.phase), {fmt::format("parallel.zero_stage={}", c.stage)});
    EXPECT_EQ(r.exit_code, int(Exit::failure)) << c.phase << r.err;
    EXPECT_NE(r.err.find(fmt::format("mixtape: rank {} of 2, {}, step 2: as MIXTAPE_FAULT asks", c.rank, c.phase)),
              std::string::npos)
        << c.phase << r.err;
  }
}

TEST_F(Faulty, ARankThatIsKilledInAnyPhaseEndsTheJob) {
  for (const auto& c : phases) {
    const auto begin = std::chrono::steady_clock::now();
    const ProcessResult r =
        with_fault(c.rank, fmt::format("kill 2 {}", c.phase), {fmt::format("parallel.zero_stage={}", c.stage)});
    EXPECT_LT(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count(), 30);
    EXPECT_NE(r.exit_code, 0) << c.phase;
    EXPECT_NE(r.exit_code, 75) << c.phase;
    EXPECT_TRUE(std::regex_search(r.out + r.err, std::regex(fmt::format("rank {} .*signal 9", c.rank))))
        << c.phase << r.out << r.err;
  }
}

// The other one waits for it, and says where.
TEST_F(Faulty, ARankThatIsStoppedInAnyPhaseEndsTheJob) {
  for (const auto& c : phases) {
    const auto begin = std::chrono::steady_clock::now();
    const ProcessResult r = with_fault(c.rank, fmt::format("stop 2 {}", c.phase),
                                       {"parallel.timeout_seconds=2", fmt::format("parallel.zero_stage={}", c.stage)});
    EXPECT_LT(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count(), 30);
    EXPECT_EQ(r.exit_code, int(Exit::failure)) << c.phase << r.err;
    const std::regex waits(
        fmt::format("mixtape: rank {} of 2: no progress for [0-9]+ s in: [a-z' ]+, step [23]", 1 - c.rank));
    EXPECT_TRUE(std::regex_search(r.err, waits)) << c.phase << r.err;
    // The stopped one may say the same: mpirun lets it go on before it ends it.
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

}  // namespace
}  // namespace mixtape
