// The optimizer's state outside of memory: the same bits, in the memory that was planned, saved and loaded as any
// other.
#include <gtest/gtest.h>

#include "tests/checkpoint/temporary_directory.h"
#include "tests/support/thread_ranks.h"
#include "tests/train/rank_run.h"
#include "tests/train/tiny_run.h"
#include "train/parallel/communication_thread.h"
#include "train/parallel/world.h"
#include "train/resume.h"

namespace mixtape {
namespace {

struct Trained {
  std::vector<std::vector<std::byte>> bytes;  // weights, masters, moments
  std::vector<double> losses;
  MemoryPlan plan;
  bool operator==(const Trained& o) const { return bytes == o.bytes && losses == o.losses; }
};

// A model of 190,000 parameters and more micro-batches than one, unless gradients are fused.
Config offload_config(std::vector<std::string> settings, bool offload, const TemporaryDirectory& directory) {
  if (offload) {
    settings.push_back("memory.offload=optimizer");
    settings.push_back("memory.offload_directory=" + (directory / "state").string());
  }
  return config_of(settings);
}

int64_t micro_batches_of(const Config& config) { return config.precision.gradients == GradientStorage::fused ? 1 : 2; }

void advance(RankRun& run, int steps, std::vector<double>& losses) {
  for (int i = 0; i < steps; ++i) losses.push_back(run.advance(micro_batches_of(run.config)).loss);
}

Trained train(const Config& config, int steps = 3) {
  RankRun run(config, single_process());
  Trained trained{.plan = run.plan};
  advance(run, 1, trained.losses);
  const int64_t requests = run.engine.arena().requests();
  advance(run, 1, trained.losses);
  const int64_t usual = run.engine.arena().requests() - requests;
  advance(run, steps - 2, trained.losses);
  EXPECT_EQ(run.engine.arena().requests() - requests, usual * (steps - 1)) << "each step makes the same requests";
  run.engine.run_micro_batch(false);
  EXPECT_EQ(run.engine.arena().peak(), run.plan.peak);
  EXPECT_EQ(run.engine.arena().at_peak(), run.plan.at_peak);
  EXPECT_EQ(run.engine.parameters().offloaded_bytes(), run.plan.offloaded);
  trained.bytes = all_bytes(run.engine);
  return trained;
}

const std::string fused = "precision.gradients=fused train.on_nonfinite.policy=stop train.global_batch_size=2 ",
                  few = "train.global_batch_size=4 ";

class OffloadedState : public testing::TestWithParam<std::string> {};

TEST_P(OffloadedState, HasTheBitsOfStateInMemory) {
  const TemporaryDirectory directory;
  const Trained held = train(offload_config({GetParam()}, false, directory));
  const Trained outside = train(offload_config({GetParam()}, true, directory));
  EXPECT_EQ(held.losses, outside.losses);
  EXPECT_EQ(held.bytes, outside.bytes);
  EXPECT_GT(outside.plan.offloaded, 0);
  EXPECT_EQ(held.plan.offloaded, 0);
  EXPECT_TRUE(std::filesystem::is_empty(directory / "state"));
}

INSTANTIATE_TEST_SUITE_P(
    Modes, OffloadedState,
    testing::Values(few, few + "precision.mode=bf16", few + "precision.mode=bf16 precision.moments=bf16",
                    few + "precision.mode=bf16 precision.master=remainder16 precision.moments=int8",
                    few + "precision.mode=bf16 precision.master=none precision.moments=fp8 precision.gradients=bf16",
                    few + "precision.mode=fp16 optimizer.name=adam", few + "optimizer.name=lion precision.moments=int8",
                    few + "optimizer.name=sgd precision.mode=bf16",
                    few + "optimizer.name=muon precision.mode=bf16 precision.master=remainder16",
                    few + "optimizer.name=adafactor precision.mode=bf16", few + "optimizer.scale_parameter=true",
                    few + "lora.rank=4", few + "parameters.freeze=['layers.1.*']", fused,
                    fused + "precision.mode=bf16 precision.master=remainder16 precision.moments=bf16",
                    fused + "precision.mode=bf16 precision.master=none precision.moments=int8 memory.recompute=full",
                    fused + "optimizer.name=adafactor optimizer.adafactor.beta1=0.9",
                    fused + "optimizer.name=muon train.clip_pass=always"));

// What the plan has less in memory is what is outside, but for two places of a piece, which here is a chunk.
TEST(Offload, TheArenaShrinksByWhatIsOutside) {
  const TemporaryDirectory directory;
  const auto plan = [&](bool offload, const std::string& settings) {
    const Config config = offload_config({settings}, offload, directory);
    return plan_training(training_options(config), config);
  };
  const auto of = [](const MemoryPlan& p, Category c) { return p.at_peak[size_t(c)]; };
  const MemoryPlan held = plan(false, "precision.mode=bf16"), outside = plan(true, "precision.mode=bf16");
  const int64_t masters = of(held, Category::master), moments = of(held, Category::optimizer);
  EXPECT_GE(outside.offloaded, masters + moments);
  EXPECT_LT(outside.offloaded, masters + moments + 3 * 4096);
  EXPECT_EQ(of(outside, Category::master), 2 * 4 * chunk_elements);
  EXPECT_EQ(of(outside, Category::optimizer), 2 * 8 * chunk_elements);
  EXPECT_EQ(held.peak - outside.peak, masters + moments - 2 * 12 * chunk_elements);
}

// A checkpoint of either kind goes on as either kind, and has the bits of a run that never stopped.
TEST(Offload, SavesAndLoadsAsStateInMemoryDoes) {
  const std::string settings = few + "precision.mode=bf16 precision.master=remainder16 precision.moments=int8";
  const TemporaryDirectory state;
  const Trained never_stopped = train(offload_config({settings}, false, state), 4);
  for (const auto& [before, after] : {std::pair{true, true}, {true, false}, {false, true}}) {
    const TemporaryDirectory directory;
    const Config first = offload_config({settings}, before, state), second = offload_config({settings}, after, state);
    std::vector<double> losses;
    std::filesystem::path path;
    {
      RankRun run(first, single_process());
      advance(run, 2, losses);
      RunState saved;
      saved.config = to_yaml(first);
      saved.attempts = saved.updates = 2;
      path = save_run(run.engine, run.step, saved, CheckpointDirectory(directory / "c"), {}, {});
      advance(run, 1, losses);  // what is read back has not been disturbed
      losses.pop_back();
    }
    RankRun run(second, single_process());
    advance(run, 1, losses);  // what is loaded replaces what was fetched ahead
    losses.pop_back();
    const CheckpointReader reader(path);
    load_run(run.engine, run.step, &reader);
    advance(run, 2, losses);
    EXPECT_EQ(losses, never_stopped.losses) << before << after;
    EXPECT_EQ(all_bytes(run.engine), never_stopped.bytes) << before << after;
  }
}

// Each rank has its own shards in a file of its own; of 4 ranks some have none.
TEST(Offload, RanksOffloadTheirShards) {
  const TemporaryDirectory directory;
  for (const int stage : {0, 1, 2, 3}) {
    using PerRank = std::array<std::vector<std::vector<std::byte>>, 4>;
    PerRank held, outside;
    for (const bool offload : {false, true}) {
      const Config config =
          offload_config({fmt::format("precision.mode=bf16 precision.moments=int8 parallel.zero_stage={}", stage)},
                         offload, directory);
      PerRank& bytes = offload ? outside : held;
      ThreadRanks::run(4, [&](Communicator& others) {
        CommunicationThread ranks(others);
        RankRun run(config, ranks);
        for (int i = 0; i < 2; ++i) run.advance(8);
        EXPECT_EQ(run.engine.arena().peak(), run.plan.peak) << ranks.rank();
        bytes[size_t(ranks.rank())] = all_bytes(run.engine);
      });
    }
    for (size_t r = 0; r < held.size(); ++r) EXPECT_EQ(outside[r], held[r]) << "stage " << stage << ", rank " << r;
  }
}

}  // namespace
}  // namespace mixtape
