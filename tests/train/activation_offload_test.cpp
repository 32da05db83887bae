// What layers keep for backward, outside of memory: the same bits, in the memory that was planned, which does not grow
// with the number of layers.
#include <gtest/gtest.h>
#include <unistd.h>

#include "tests/checkpoint/temporary_directory.h"
#include "tests/support/full_disk.h"
#include "tests/support/thread_ranks.h"
#include "tests/train/rank_run.h"
#include "tests/train/tiny_run.h"
#include "train/parallel/communication_thread.h"

namespace mixtape::activation_offload {
namespace {

struct Trained {
  std::vector<std::vector<std::byte>> bytes;  // weights, masters, moments
  std::vector<double> losses;
  MemoryPlan plan;
};

Config config_with(const std::string& settings, const std::string& offload, const TemporaryDirectory& directory) {
  std::vector<std::string> all = {"model.n_layers=5", "schedule.warmup_steps=1", settings};
  if (offload != "none") {
    all.push_back("memory.offload=" + offload);
    all.push_back("memory.offload_directory=" + (directory / "outside").string());
  }
  Config config = config_of(all);
  config.data.sources = {{.name = "none", .path = "none"}};
  check(config, {}, build_features());
  return config;
}

Trained train(const Config& config) {
  const int64_t micro_batches = config.train.global_batch_size / config.train.micro_batch_size;
  RankRun run(config, single_process());
  Trained trained{.plan = run.plan};
  const auto advance = [&] { trained.losses.push_back(run.advance(micro_batches).loss); };
  advance();
  const int64_t requests = run.engine.arena().requests();
  advance();
  const int64_t usual = run.engine.arena().requests() - requests;
  run.engine.run_micro_batch(false);
  const int64_t outside = run.engine.tape().saved().most_outside(), before = run.engine.arena().requests();
  advance();
  EXPECT_EQ(run.engine.arena().requests() - before, usual) << "each step makes the same requests";
  EXPECT_EQ(run.engine.arena().peak(), run.plan.peak);
  EXPECT_EQ(run.engine.arena().at_peak(), run.plan.at_peak);
  EXPECT_EQ(outside, run.plan.offloaded_activations) << "and validation stores nothing";
  EXPECT_EQ(run.engine.parameters().offloaded_bytes() + outside, run.plan.offloaded);
  trained.bytes = all_bytes(run.engine);
  return trained;
}

const std::string fused = " precision.gradients=fused train.on_nonfinite.policy=stop train.global_batch_size=2",
                  few = " train.global_batch_size=4", selective = "memory.recompute=selective" + few,
                  none = "memory.recompute=none" + few, full = "memory.recompute=full" + few,
                  llama =
                      " model.position=rope model.norm=rmsnorm model.activation=swiglu model.bias=false "
                      "model.n_kv_heads=2 model.tied_embeddings=false model.d_ff=96",
                  bert =
                      " model.family=encoder objective.name=masked_lm model.norm_placement=post "
                      "model.final_norm=false model.embedding_norm=true model.token_types=2 model.mlm_head=true",
                  t5 = " model.family=encoder_decoder objective.name=span_corruption model.position=relative_bias "
                       "model.norm=rmsnorm model.bias=false model.activation=geglu_tanh",
                  bart =
                      " model.family=encoder_decoder objective.name=denoising model.norm_placement=post "
                      "model.final_norm=false model.embedding_norm=true model.activation=gelu";

class OffloadedActivations : public testing::TestWithParam<std::string> {};

TEST_P(OffloadedActivations, HaveTheBitsOfThoseInMemory) {
  const TemporaryDirectory directory;
  const Trained held = train(config_with(GetParam(), "none", directory));
  for (const char* offload : {"activations", "all"}) {
    const Trained outside = train(config_with(GetParam(), offload, directory));
    EXPECT_EQ(held.losses, outside.losses) << offload;
    EXPECT_EQ(held.bytes, outside.bytes) << offload;
    EXPECT_GT(outside.plan.offloaded_activations, 0);
    const bool all = offload == std::string("all");
    if (!all) EXPECT_LT(outside.plan.peak, held.plan.peak);
    EXPECT_EQ(outside.plan.offloaded > outside.plan.offloaded_activations, all);
  }
  EXPECT_TRUE(std::filesystem::is_empty(directory / "outside"));
}

INSTANTIATE_TEST_SUITE_P(
    Modes, OffloadedActivations,
    testing::Values(none, selective, full, selective + " precision.mode=bf16", full + " precision.mode=bf16",
                    selective + " precision.mode=fp16", selective + " precision.mode=fp8",
                    selective + " precision.mode=int8_qat", selective + " memory.loss_chunk_tokens=5",
                    none + " model.attention_dropout=0.1 model.dropout=0", none + llama, selective + llama,
                    full + llama, none + bert, selective + bert, full + bert, none + t5, selective + t5, full + t5,
                    selective + bart + " precision.mode=bf16", full + bart, selective + " lora.rank=4",
                    selective + " parameters.freeze=['layers.1.*']",
                    selective + " parameters.freeze=['layers.0.*','layers.1.*','embedding.*']",
                    "memory.recompute=selective" + fused, "memory.recompute=full precision.mode=bf16" + fused,
                    "memory.recompute=none train.clip_pass=always" + fused));

// Those of two layers are in memory, and what a layer needs while it computes, however many layers there are; and of
// all layers what is smaller than a page, here statistics of norms and of attention.
TEST(ActivationOffload, MemoryDoesNotGrowWithLayers) {
  const TemporaryDirectory directory;
  for (const std::string& settings :
       {none, selective, full, selective + llama, selective + bert, selective + " precision.mode=bf16"}) {
    const auto plan = [&](int layers, const char* offload) {
      const Config config = config_with(settings + fmt::format(" model.n_layers={}", layers), offload, directory);
      return plan_training(training_options(config), config);
    };
    const auto activations = [](const MemoryPlan& p) { return p.at_peak[size_t(Category::activations)]; };
    const MemoryPlan seven = plan(7, "activations"), twelve = plan(12, "activations");
    constexpr int64_t small = 2048;
    EXPECT_LE(activations(twelve) - activations(seven), 5 * small) << settings;
    EXPECT_GT(activations(plan(12, "none")), activations(plan(7, "none"))) << settings;
    // What went out is what would have been there.
    const int64_t a_layer = (activations(plan(12, "none")) - activations(plan(7, "none"))) / 5;
    const int64_t a_layer_outside = (twelve.offloaded_activations - seven.offloaded_activations) / 5;
    EXPECT_GE(a_layer_outside, a_layer - small) << settings;
  }
}

TEST(ActivationOffload, RanksHaveFilesOfTheirOwn) {
  const TemporaryDirectory directory;
  const std::string zero = selective + " train.global_batch_size=16 precision.mode=bf16 parallel.zero_stage=",
                    cut = " train.global_batch_size=8 parallel.tensor_parallel_size=2 determinism=fast ";
  for (const auto& [settings, world] : {std::pair{zero + "0", 4},
                                        {zero + "1", 4},
                                        {zero + "2", 4},
                                        {zero + "3", 4},
                                        {cut + none, 2},
                                        {cut + full, 2},
                                        {cut + selective + t5, 4}}) {
    std::vector<std::vector<std::vector<std::byte>>> bytes[2];
    for (const bool offload : {false, true}) {
      const Config config = config_with(settings, offload ? "all" : "none", directory);
      bytes[offload].resize(size_t(world));
      ThreadRanks::run(world, [&, n = world](Communicator& others) {
        CommunicationThread ranks(others);
        RankRun run(config, ranks);
        const int64_t micro_batches = config.train.global_batch_size / config.train.micro_batch_size;
        for (int i = 0; i < 2; ++i) run.advance(micro_batches);
        EXPECT_EQ(run.engine.arena().peak(), run.plan.peak) << ranks.rank() << " of " << n;
        EXPECT_EQ(run.plan.offloaded_activations > 0, offload);
        bytes[offload][size_t(ranks.rank())] = all_bytes(run.engine);
      });
    }
    for (size_t r = 0; r < size_t(world); ++r) EXPECT_EQ(bytes[1][r], bytes[0][r]) << settings << ", rank " << r;
  }
}

TEST(ActivationOffload, ADiskThatIsFullOrFailsEndsTheRunWithALine) {
  const TemporaryDirectory directory;
  const Config config = config_with(selective, "activations", directory);
  const auto error_of = [](const std::function<void()>& act) {
    try {
      act();
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  const auto has = [](const std::string& text, const char* part) {
    if (text.find(part) != text.npos) return true;
    fmt::print(stderr, "'{}' is not in '{}'\n", part, text);
    return false;
  };
  EXPECT_EQ(exit_code_of([&] {
              limit_files(4096);
              const std::string error = error_of([&] { RankRun(config, single_process()); });
              return has(error, "MiB for activations in ") && has(error, "free room on that disk") ? 0 : 1;
            }),
            0);
  EXPECT_EQ(exit_code_of([&] {
              RankRun run(config, single_process());
              run.advance(2);
              limit_files(4096);
              const std::string error = error_of([&] { run.advance(2); });
              return has(error, "memory.offload: writing ") && has(error, " of activations in ") ? 0 : 1;
            }),
            0);
}

}  // namespace
}  // namespace mixtape::activation_offload
