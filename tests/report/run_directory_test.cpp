#include "train/report/run_directory.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "tests/report/temporary.h"

namespace mixtape {
namespace {

TEST(RunDirectory, ASecondTrainerIsRefusedUntilTheFirstIsGone) {
  const TemporaryFolder folder;
  {
    const RunDirectory run(folder / "a/b");
    EXPECT_TRUE(std::filesystem::is_directory(run.checkpoints()));
    try {
      RunDirectory again(folder / "a/b");
      FAIL() << "two trainers share a run directory";
    } catch (const ConfigError& error) {
      EXPECT_NE(std::string(error.what()).find("number " + std::to_string(::getpid())), std::string::npos)
          << error.what();
      EXPECT_NE(std::string(error.what()).find("run.name="), std::string::npos) << error.what();
    }
  }
  EXPECT_NO_THROW(RunDirectory(folder / "a/b"));
}

TEST(RunDirectory, AFileInTheWayIsAConfigError) {
  const TemporaryFolder folder;
  write(folder / "name", "");
  EXPECT_THROW(RunDirectory(folder / "name"), ConfigError);
}

TEST(RunDirectory, AnEarlierConfigurationIsKeptWhenItDiffers) {
  const TemporaryFolder folder;
  const RunDirectory run(folder / "run");
  run.write_config("lr: 1\n");
  run.write_config("lr: 1\n");
  EXPECT_FALSE(std::filesystem::exists(folder / "run/config.resolved.1.yaml"));
  run.write_config("lr: 2\n");
  run.write_config("lr: 3\n");
  EXPECT_EQ(read(folder / "run/config.resolved.1.yaml"), "lr: 1\n");
  EXPECT_EQ(read(folder / "run/config.resolved.2.yaml"), "lr: 2\n");
  EXPECT_EQ(read(run.config_file()), "lr: 3\n");
}

TEST(RunDirectory, TheEnvironmentSaysWhatRanAndWhere) {
  const TemporaryFolder folder;
  const RunDirectory run(folder / "run");
  run.write_environment({"mixtape", "train", "my config.yaml"});
  const auto json = nlohmann::json::parse(read(run.environment_file()));
  EXPECT_EQ(json.at("command"), "mixtape train 'my config.yaml'");
  EXPECT_NE(json.at("libraries").at("oneDNN").get<std::string>().find("kernels for"), std::string::npos);
  EXPECT_TRUE(json.contains("CPU"));
  EXPECT_TRUE(json.contains("started"));
}

TEST(RunDirectory, AtomicWritesLeaveNoTemporaryFile) {
  const TemporaryFolder folder;
  write_file_atomically(folder / "f", "one");
  write_file_atomically(folder / "f", "two");
  EXPECT_EQ(read(folder / "f"), "two");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 1);
  EXPECT_THROW(write_file_atomically(folder / "missing/f", "x"), Error);
}

TEST(ShellCommand, QuotesWhatAShellWouldTouch) {
  EXPECT_EQ(shell_command({"mixtape", "optimizer.lr=1e-3", "a b", "it's", "$x", ""}),
            "mixtape optimizer.lr=1e-3 'a b' 'it'\\''s' '$x' ''");
}

TEST(GitCommit, ReadsHeadLooseAndPacked) {
  const std::string a(40, 'a'), b(40, 'b');
  const TemporaryFolder folder;
  write(folder / ".git/HEAD", "ref: refs/heads/main\n");
  write(folder / ".git/packed-refs", "# pack-refs with: peeled\n" + b + " refs/heads/main\n");
  std::filesystem::create_directories(folder / "below/here");
  EXPECT_EQ(git_commit(folder / "below/here"), b);
  write(folder / ".git/refs/heads/main", a + "\n");
  EXPECT_EQ(git_commit(folder.path()), a);
  write(folder / ".git/HEAD", b + "\n");
  EXPECT_EQ(git_commit(folder.path()), b);
}

}  // namespace
}  // namespace mixtape
