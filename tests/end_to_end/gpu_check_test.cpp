// scripts/gpu_check where there is no GPU: what it lists and refuses; and with a driver, a build and programs that are
// played by shell scripts, that stages are run once, resumed, and put into the table.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>

#include "tests/end_to_end/process.h"

namespace mixtape {
namespace {

class GpuCheck : public testing::Test {
 protected:
  struct Result {
    int code;
    std::string out, err;
  };
  Result run(const std::string& arguments) const {
    const std::string at = space.path().string();
    const std::string command = "cd " + std::string(MIXTAPE_SOURCE) + " && PATH=" + at + "/bin:$PATH CALLS=" + at +
                                "/calls scripts/gpu_check --dir " + at + "/check " + arguments + " > " + at +
                                "/out 2> " + at + "/err";
    const int status = std::system(command.c_str());
    return {WEXITSTATUS(status), space.read("out"), space.read("err")};
  }
  // A program on the PATH that notes how it was called.
  void play(const std::string& name, const std::string& body) const {
    space.write("bin/" + name, "#!/bin/bash\necho \"" + name + " $*\" >> $CALLS\n" + body);
    chmod((space.path() / "bin" / name).c_str(), 0755);
  }
  void play_a_gpu() const {
    play("nvidia-smi", "echo 'NVIDIA H200, 9.0'\n");
    const std::string programs = space.path().string() + "/bin/";
    const std::string build = space.path().string() + "/check/build/";
    play("cmake", "mkdir -p " + build + "\ncp " + programs + "played_mixtape " + build + "mixtape\ncp " + programs +
                      "played_test_gpu " + build + "test_gpu\n");
    play("played_test_gpu",
         "[ -z \"$GTEST_SHARD_INDEX\" ] || [ \"$GTEST_SHARD_INDEX\" != \"$(cat $CALLS.fails 2>&1)\" ]\n");
    play("played_mixtape", R"x(
if [ "$2" = ops ]; then
  echo '{"limits": {"fma": 7e14, "copy": 4e12}, "operations": [
    {"operation": "norm", "shape": "16384 x 768", "pass": "forward", "seconds": 2e-5, "flop": 0, "bytes": 5e7,
     "share_of_limit": 0.625},
    {"operation": "attention", "shape": "4 x 4096, by cuDNN", "pass": "forward", "seconds": 1e-3, "flop": 5e11,
     "bytes": 1e7, "share_of_limit": 0.71}]}'
else
  echo '{"tokens_per_second": 580000, "mfu": 0.5038, "share_of_fma": 0.61}'
fi
)x");
  }
  size_t calls(const std::string& what) const {
    const std::string text = space.read("calls");
    size_t n = 0;
    for (size_t at = text.find(what); at != text.npos; at = text.find(what, at + 1)) ++n;
    return n;
  }
  Workspace space;
};

TEST_F(GpuCheck, ListsItsStages) {
  const Result r = run("--list");
  EXPECT_EQ(r.code, 0) << r.err;
  for (const char* stage : {"build", "instructions", "operations-1", "ops", "attention", "train"})
    EXPECT_NE(("\n" + r.out).find("\n" + std::string(stage) + " "), std::string::npos) << stage << r.out;
}

TEST_F(GpuCheck, WithoutAGpuItSaysSo) {
  play("nvidia-smi", "exit 9\n");
  const Result r = run("");
  EXPECT_EQ(r.code, 1);
  EXPECT_EQ(r.err, "gpu_check: no GPU was found (nvidia-smi names none), expected one of NVIDIA with its driver\n");
  EXPECT_EQ(run("--stage nonsense").code, 1);
  EXPECT_NE(space.read("err").find("no stage is called nonsense, expected one of build, "), std::string::npos);
}

TEST_F(GpuCheck, StagesAreResumedAndPutIntoATable) {
  play_a_gpu();
  space.write("calls.fails", "2\n");  // the third part of the operations
  Result r = run("");
  EXPECT_EQ(r.code, 1);
  EXPECT_NE(r.err.find("gpu_check: operations-3 failed with 1; see "), std::string::npos) << r.err;
  EXPECT_EQ(calls("cmake --build"), 1u);
  EXPECT_EQ(calls("-DCMAKE_CUDA_ARCHITECTURES=90a-real"), 1u);
  EXPECT_EQ(calls("played_test_gpu"), 4u);  // instructions and three parts
  EXPECT_EQ(calls("played_mixtape"), 0u);
  r = run("--list");
  EXPECT_NE(r.out.find("operations-2       done"), std::string::npos) << r.out;
  EXPECT_NE(r.out.find("operations-3       to do"), std::string::npos) << r.out;

  space.write("calls.fails", "none\n");
  r = run("");
  EXPECT_EQ(r.code, 0) << r.err;
  EXPECT_EQ(calls("cmake --build"), 1u) << "what is done is not done again";
  EXPECT_EQ(calls("played_test_gpu"), 6u);
  EXPECT_EQ(calls("played_mixtape bench train"), 5u);
  EXPECT_NE(r.out.find("GPU: NVIDIA H200"), std::string::npos) << r.out;
  EXPECT_NE(r.out.find("2500.0 GB/s        62 %  below"), std::string::npos) << r.out;
  EXPECT_NE(r.out.find("500.0 TFLOP/s     71 %\n"), std::string::npos) << r.out;
  EXPECT_NE(r.out.find("train                  580000   50.4 %         61 %"), std::string::npos) << r.out;

  EXPECT_EQ(run("").code, 0);
  EXPECT_EQ(calls("played_mixtape"), 7u) << "all was done";
  EXPECT_EQ(run("--stage train").code, 0);
  EXPECT_EQ(calls("played_mixtape"), 8u) << "but one stage can be asked for";
  EXPECT_NE(run("--table").out.find("580000"), std::string::npos);
}

}  // namespace
}  // namespace mixtape
