// Checkpoints that ranks write together, and those of ranks that do not see each other's files.
#include "train/parallel/shared_file.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <unistd.h>

#include "core/base/error.h"
#include "tests/checkpoint/temporary_directory.h"
#include "tests/support/thread_ranks.h"
#include "tests/train/rank_run.h"
#include "train/resume.h"

namespace mixtape {
namespace {

TEST(SharedFile, HasWhatEachRankWrites) {
  const TemporaryDirectory directory;
  const std::filesystem::path path = directory / "f";
  ThreadRanks::run(4, [&](Communicator& ranks) {
    std::optional<SharedFile> file = SharedFile::create(ranks, path, "begin:", 6 + 4 * 100000);
    ASSERT_TRUE(file);
    const std::string mine(100000, char('a' + ranks.rank()));
    file->write(6 + 100000 * uint64_t(ranks.rank()), std::as_bytes(std::span(mine)));
    const FileRecord record = file->finish();
    EXPECT_EQ(record, ranks.rank() == 0 ? hash_file(path) : FileRecord{});
  });
  std::string want = "begin:";
  for (const char c : {'a', 'b', 'c', 'd'}) want += std::string(100000, c);
  EXPECT_EQ(read_text_file(path), want);
}

TEST(SharedFile, ThatARankDoesNotSeeIsNone) {
  const TemporaryDirectory directory;
  ThreadRanks::run(3, [&](Communicator& ranks) {
    EXPECT_FALSE(SharedFile::create(ranks, directory / (ranks.rank() == 2 ? "elsewhere" : "f"), "x", 10));
  });
  EXPECT_FALSE(std::filesystem::exists(directory / "f"));
}

TEST(SharedFile, ThatCannotBeMadeIsAnErrorOfRankZero) {
  const TemporaryDirectory directory;
  ThreadRanks::run(2, [&](Communicator& ranks) {
    if (ranks.rank() == 0) {
      EXPECT_THROW(SharedFile::create(ranks, directory / "no/such/f", "x", 10), CheckpointError);
    } else {
      EXPECT_EQ(SharedFile::create(ranks, directory / "no/such/f", "x", 10)->finish(), FileRecord{});
    }
  });
}

TEST(SharedFile, AnErrorOfAnyRankIsSaidByRankZero) {
  const TemporaryDirectory directory;
  ThreadRanks::run(3, [&](Communicator& ranks) {
    std::optional<SharedFile> file = SharedFile::create(ranks, directory / "f", "x", 10);
    ASSERT_TRUE(file);
    const std::string text = "text";
    // No file system has files so large.
    file->write(ranks.rank() == 1 ? uint64_t(INT64_MAX) - 2 : 1, std::as_bytes(std::span(text)));
    if (ranks.rank() > 0) {
      EXPECT_EQ(file->finish(), FileRecord{});
      return;
    }
    try {
      file->finish();
      ADD_FAILURE() << "no error";
    } catch (const CheckpointError& error) {
      EXPECT_NE(std::string(error.what()).find("rank 1 cannot write"), std::string::npos) << error.what();
    }
  });
}

// Step 1 on four ranks, whose checkpoint is the same file whether they all write it or, as they have disks of their
// own, rank 0 alone does.
TEST(SavedTogether, IsWhatRankZeroWritesAlone) {
  for (const char* settings : {"precision.mode=bf16 precision.moments=int8 parallel.zero_stage=2",
                               "precision.mode=bf16 parallel.zero_stage=0", "parallel.zero_stage=3"}) {
    const Config config = config_of({settings});
    const auto saved = [&](bool apart) {
      const TemporaryDirectory one, other;
      const std::filesystem::path before = std::filesystem::current_path();
      std::filesystem::current_path(one.path);
      std::string files;
      ThreadRanks::run(4, [&](Communicator& ranks) {
        // A thread with a working directory of its own.
        if (apart && ranks.rank() > 0) {
          ASSERT_EQ(unshare(CLONE_FS), 0);
          ASSERT_EQ(chdir(other.path.c_str()), 0);
        }
        RankRun run(config, ranks);
        run.advance(8);
        RunState state;
        state.config = to_yaml(config);
        state.attempts = state.updates = 1;
        const auto path = save_run(run.engine, run.step, state, CheckpointDirectory("c"), {}, {});
        if (ranks.rank() > 0) return;
        verify_checkpoint(path);
        for (const char* name : {"model.safetensors", "optimizer.safetensors"}) files += read_text_file(path / name);
      });
      std::filesystem::current_path(before);
      return files;
    };
    const std::string together = saved(false);
    EXPECT_GT(together.size(), 1000u);
    EXPECT_EQ(together, saved(true)) << settings;
  }
}

}  // namespace
}  // namespace mixtape
