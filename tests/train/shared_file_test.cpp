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
    file->write(
        [&](const SharedFile::Put& put) { put(6 + 100000 * uint64_t(ranks.rank()), std::as_bytes(std::span(mine))); });
    const FileRecord record = file->finish();
    EXPECT_EQ(record, ranks.rank() == 0 ? hash_file(path) : FileRecord{});
  });
  std::string want = "begin:";
  for (const char c : {'a', 'b', 'c', 'd'}) want += std::string(100000, c);
  EXPECT_EQ(read_text_file(path), want);
}

// In turns, and in pieces: 16 MiB and a little more from each.
TEST(SharedFile, ThatARankDoesNotSeeRankZeroWritesForAll) {
  const TemporaryDirectory directory;
  constexpr size_t size = (16 << 20) + 10;
  ThreadRanks::run(3, [&](Communicator& ranks) {
    const std::filesystem::path path = directory / (ranks.rank() == 2 ? "elsewhere" : "f");
    std::optional<SharedFile> file = SharedFile::create(ranks, path, "x", 1 + 3 * size);
    ASSERT_TRUE(file);
    const std::string mine(size, char('a' + ranks.rank()));
    file->write(
        [&](const SharedFile::Put& put) { put(1 + size * size_t(ranks.rank()), std::as_bytes(std::span(mine))); });
    file->write([](const SharedFile::Put&) {});
    const FileRecord record = file->finish();
    EXPECT_EQ(record, ranks.rank() == 0 ? hash_file(path) : FileRecord{});
  });
  std::string want = "x";
  for (const char c : {'a', 'b', 'c'}) want += std::string(size, c);
  EXPECT_TRUE(read_text_file(directory / "f") == want);
  EXPECT_FALSE(std::filesystem::exists(directory / "elsewhere"));
}

TEST(SharedFile, ThatCannotBeMadeIsAnErrorOfRankZero) {
  const TemporaryDirectory directory;
  ThreadRanks::run(2, [&](Communicator& ranks) {
    if (ranks.rank() == 0) {
      EXPECT_THROW(SharedFile::create(ranks, directory / "no/such/f", "x", 10), CheckpointError);
    } else {
      EXPECT_FALSE(SharedFile::create(ranks, directory / "no/such/f", "x", 10));
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
    file->write([&](const SharedFile::Put& put) {
      put(ranks.rank() == 1 ? uint64_t(INT64_MAX) - 2 : 1, std::as_bytes(std::span(text)));
    });
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

TEST(OpenedTogether, IsAFileThatAllSee) {
  const TemporaryDirectory directory, other;
  const float number = 1;
  const auto path = directory / "f";
  write_safetensors(path, {tensor_source("x", DType::f32, {1}, &number)});
  ThreadRanks::run(3, [&](Communicator& ranks) {
    const auto file = open_together(ranks, ranks.rank() == 0 ? path : std::filesystem::path());
    ASSERT_TRUE(file);
    EXPECT_EQ(file->at("x").shape, Extents{1});
  });
  // Rank 2's disk has a copy: the same bytes, and who knows since when.
  std::filesystem::copy_file(path, other / "f");
  const std::filesystem::path before = std::filesystem::current_path();
  std::filesystem::current_path(directory.path);
  ThreadRanks::run(3, [&](Communicator& ranks) {
    if (ranks.rank() == 2) {
      ASSERT_EQ(unshare(CLONE_FS), 0);
      ASSERT_EQ(chdir(other.path.c_str()), 0);
    }
    EXPECT_FALSE(open_together(ranks, "f"));
  });
  std::filesystem::current_path(before);
}

// A checkpoint of ranks as they start, after `steps`: the bytes of its files of tensors.
std::string saved_by(const Config& config, int world, int steps) {
  const TemporaryDirectory directory;
  std::string files;
  ThreadRanks::run(world, [&](Communicator& ranks) {
    RankRun run(config, ranks);
    for (int i = 0; i < steps; ++i) run.advance(8);
    RunState state;
    state.config = to_yaml(config);
    state.attempts = state.updates = 1;
    const auto path = save_run(run.engine, run.step, state, CheckpointDirectory(directory / "c"), {}, {});
    if (ranks.rank() > 0) return;
    verify_checkpoint(path);
    for (const char* name : {"model.safetensors", "adapter_model.safetensors", "optimizer.safetensors"})
      if (std::filesystem::exists(path / name)) files += read_text_file(path / name);
  });
  return files;
}

// Tensors that are transposed, taken apart, in the order of heads, and zeros of no parameter.
TEST(SavedTogether, IsWhatOneProcessWrites) {
  const char* models[] = {
      "precision.mode=bf16",
      "model.norm=rmsnorm model.bias=false model.position=rope model.activation=swiglu model.n_kv_heads=2 "
      "model.tied_embeddings=false",
      "model.position=alibi model.embedding_norm=true precision.mode=bf16 precision.master=remainder16",
      "model.family=encoder_decoder objective.name=denoising model.norm_placement=post model.final_norm=false "
      "model.embedding_norm=true model.activation=gelu"};
  for (const std::string model : models) {
    const std::string one = saved_by(config_of({model}), 1, 0);
    EXPECT_GT(one.size(), 1000000u) << model;
    for (const auto& [world, stage, sharing] :
         {std::array{2, 0, 1}, {4, 0, 1}, {2, 3, 1}, {4, 3, 1}, {2, 0, 2}, {4, 1, 2}, {4, 3, 2}})
      EXPECT_TRUE(saved_by(config_of({model, fmt::format("parallel.zero_stage={}", stage),
                                      fmt::format("parallel.tensor_parallel_size={}", sharing)}),
                           world, 0) == one)
          << model << ", " << world << " ranks, stage " << stage << ", layers among " << sharing;
  }
}

TEST(SavedTogether, HasWhatIsFrozenAndAdapters) {
  for (const std::string some : {"lora.rank=4", "parameters.freeze=['layers.0.*']"}) {
    const std::string one = saved_by(config_of({some}), 1, 2);
    for (const int world : {2, 4})
      for (const int stage : {0, 3})
        EXPECT_TRUE(saved_by(config_of({some, fmt::format("parallel.zero_stage={}", stage)}), world, 2) == one)
            << some << ", " << world << " ranks, stage " << stage;
  }
}

// Step 1 on four ranks, whose checkpoint is the same file whether they all write it or, as they have disks of their
// own, rank 0 does for all.
TEST(SavedTogether, IsTheSameWhereRanksHaveDisksOfTheirOwn) {
  for (const char* settings :
       {"precision.mode=bf16 precision.moments=int8 parallel.zero_stage=2", "precision.mode=bf16 parallel.zero_stage=0",
        "parallel.zero_stage=3", "parallel.tensor_parallel_size=2"}) {
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
