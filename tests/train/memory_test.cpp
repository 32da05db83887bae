// The memory of a step: what the plan says, the arena counts and the system measures.
#include "train/bench/memory.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/checkpoint/temporary_directory.h"
#include "train/bench/fit.h"
#include "train/step.h"

namespace mixtape {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool sanitized = true;  // their shadow is resident memory too
#elif defined(__has_feature)
constexpr bool sanitized = __has_feature(address_sanitizer) || __has_feature(thread_sanitizer);
#else
constexpr bool sanitized = false;
#endif

MemoryBench bench(std::vector<std::string> words, bool run) {
  for (const char* word : {"train.micro_batch_size=1", "train.global_batch_size=1"}) words.push_back(word);
  return bench_memory(load_arguments(words), run);
}

double state(const char* preset, const std::vector<std::string>& settings) {
  std::vector<std::string> words = settings;
  words.push_back(std::string("model.preset=") + preset);
  words.push_back("data.seq_length=128");
  const MemoryBench b = bench(words, false);
  return double(b.state_bytes) / double(b.parameters);
}

// Weights, master, gradients, m and v; the alignment of parameters is the rest.
TEST(Memory, StatesTakeTheBytesOfTheirTypes) {
  EXPECT_NEAR(state("gpt2", {}), 4 + 4 + 4 + 4, 1e-3);
  EXPECT_NEAR(state("gpt2", {"precision.mode=bf16"}), 2 + 4 + 4 + 4 + 4, 1e-3);
  EXPECT_NEAR(state("llama-1b", {}), 16, 1e-3);
  EXPECT_NEAR(state("bert-base", {}), 16, 1e-3);
  const std::string narrow = "precision.mode=bf16", none = "precision.master=none";
  EXPECT_NEAR(state("gpt2", {narrow, "precision.master=remainder16", "precision.moments=bf16"}), 2 + 2 + 4 + 4, 1e-3);
  EXPECT_NEAR(state("gpt2", {narrow, none, "precision.moments=bf16"}), 2 + 4 + 4, 1e-3);
  EXPECT_NEAR(state("gpt2", {narrow, none, "precision.moments=int8"}), 2 + 4 + 2 * (1 + 4 / 256.0), 1e-3);
  EXPECT_NEAR(state("gpt2", {narrow, none, "optimizer.name=lion", "precision.moments=fp8"}), 2 + 4 + 1 + 4 / 256.0,
              1e-3);
  const std::string gradients = "precision.gradients=bf16", bf16 = "precision.moments=bf16",
                    int8 = "precision.moments=int8";
  EXPECT_NEAR(state("llama-1b", {narrow, "precision.master=remainder16", gradients, bf16}), 10, 1e-3);
  EXPECT_NEAR(state("llama-1b", {narrow, none, gradients, bf16}), 8, 1e-3);
  EXPECT_NEAR(state("llama-1b", {narrow, none, gradients, int8}), 4 + 2 * (1 + 4 / 256.0), 1e-3);
  const double fused =
      state("llama-1b", {narrow, none, "precision.gradients=fused", "train.on_nonfinite.policy=stop", int8});
  EXPECT_GT(fused, 4.03);
  EXPECT_LT(fused, 4.2) << "with the largest bucket";
  EXPECT_NEAR(state("gpt2", {"optimizer.name=sgd", "optimizer.sgd.momentum=0"}), 4 + 4, 1e-3);
  EXPECT_NEAR(state("t5-small", {"optimizer.name=adafactor"}), 8, 0.02);
}

// More than 1 GB, so that what libraries and allocators keep does not count.
TEST(Memory, PlanArenaAndSystemAgree) {
  if (sanitized) GTEST_SKIP() << "a sanitizer's own memory would be measured";
  bench({"model.preset=gpt2", "model.n_layers=1", "data.seq_length=64"}, true);  // libraries and threads come to be
  for (const std::string mode : {"fp32", "bf16"}) {
    const MemoryBench b =
        bench({"model.preset=gpt2", "model.n_layers=5", "data.seq_length=64", "precision.mode=" + mode}, true);
    ASSERT_GT(b.predicted.peak, 1'000'000'000);
    EXPECT_EQ(b.counted_peak, b.predicted.peak);
    EXPECT_EQ(b.counted, b.predicted.at_peak);
    ASSERT_TRUE(b.measured);
    EXPECT_NEAR(double(*b.measured) / double(b.predicted.peak), 1, 0.02) << mode;
  }
}

// What is in a file is in the system's cache of files at most, which is not this process's memory.
TEST(Memory, OffloadedStateIsNotResident) {
  if (sanitized) GTEST_SKIP() << "a sanitizer's own memory would be measured";
  const TemporaryDirectory directory;
  bench({"model.preset=gpt2", "model.n_layers=1", "data.seq_length=64"}, true);
  const std::vector<std::string> model = {"model.preset=gpt2", "model.n_layers=12", "data.seq_length=64"};
  std::vector<std::string> offloaded = model;
  offloaded.insert(offloaded.end(),
                   {"memory.offload=optimizer", "memory.offload_directory=" + directory.path.string()});
  const MemoryBench held = bench(model, false), b = bench(offloaded, true);
  ASSERT_GT(b.predicted.peak, 1'000'000'000);
  EXPECT_NEAR(double(held.predicted.peak - b.predicted.peak) / double(b.predicted.offloaded), 1, 0.03)
      << "but for the pieces on their way";
  EXPECT_NEAR(double(b.state_bytes + b.predicted.offloaded) / double(held.state_bytes), 1, 0.02);
  EXPECT_EQ(b.counted_peak, b.predicted.peak);
  ASSERT_TRUE(b.measured);
  EXPECT_NEAR(double(*b.measured) / double(b.predicted.peak), 1, 0.02);
}

TEST(Fit, ReadsAmountsOfMemory) {
  EXPECT_EQ(bytes_of("24GiB", "--fit"), int64_t(24) << 30);
  EXPECT_EQ(bytes_of("1.5 GB", "--fit"), 1'500'000'000);
  EXPECT_EQ(bytes_of("1e9", "--fit"), 1'000'000'000);
  for (const char* text : {"", "much", "3 apples", "-1GB", "0", "nan", "1e30"})
    EXPECT_THROW(bytes_of(text, "--fit"), ConfigError) << text;
}

// What it names does fit, and twice the micro-batch does not.
TEST(Fit, NamesTheLargestMicroBatchThatFits) {
  Config config =
      load_arguments({"model.preset=gpt2", "data.seq_length=256", "train.max_steps=10", "schedule.warmup_steps=1",
                      "train.global_batch_size=64", "eval.interval=0", "logging.sample_interval=0"})
          .config;
  const int64_t bytes = int64_t(3) << 30;
  const std::vector<FittingOption> options = options_that_fit(config, {bytes});
  ASSERT_FALSE(options.empty());
  EXPECT_EQ(options.front().extra_flops, 0);
  config.memory.recompute = RecomputeMode::full;
  for (const FittingOption& option : options) {
    EXPECT_LE(option.peak_bytes, bytes) << option.settings;
    if (option.settings != "memory.recompute=full") continue;
    const auto peak = [&](int64_t size) {
      config.train.micro_batch_size = size;
      return plan_training(training_options(config), config).peak;
    };
    EXPECT_EQ(peak(option.micro_batch_size), option.peak_bytes);
    EXPECT_GT(peak(2 * option.micro_batch_size), bytes);
  }
  // At 16 bytes a parameter the states alone are twice that, of which half can be offloaded: the slowest way.
  const std::vector<FittingOption> few = options_that_fit(config, {1'150'000'000});
  ASSERT_FALSE(few.empty());
  EXPECT_EQ(few.front().offloaded, 0);
  EXPECT_GT(few.back().offloaded, 0);
  int same = 0;
  for (const FittingOption& option : few) {
    EXPECT_LE(option.same_training, option.offloaded > 0) << option.settings;
    same += option.same_training;
  }
  EXPECT_GT(same, 0);
  EXPECT_TRUE(options_that_fit(config, {int64_t(100) << 20}).empty());
}

// Of each of several processes: every stage, and layers among 2 and 4 of them; by the estimate of a step, or where
// speeds are not known by what they exchange.
TEST(Fit, NamesWaysToShareOut) {
  const Config config =
      load_arguments({"model.preset=gpt2", "data.seq_length=256", "train.max_steps=10", "schedule.warmup_steps=1",
                      "train.global_batch_size=16", "eval.interval=0", "logging.sample_interval=0"})
          .config;
  const auto find = [](const std::vector<FittingOption>& options, const std::string& settings) {
    const auto found = std::ranges::find(options, settings + " memory.recompute=selective", &FittingOption::settings);
    return found == options.end() ? FittingOption{} : *found;
  };
  const std::vector<FittingOption> all = options_that_fit(config, {int64_t(8) << 30, 4});
  for (const char* way :
       {"parallel.zero_stage=1", "parallel.zero_stage=2", "parallel.zero_stage=3",
        "'parallel={zero_stage: 0, tensor_parallel_size: 2}'", "'parallel={zero_stage: 3, tensor_parallel_size: 2}'",
        "'parallel={zero_stage: 0, tensor_parallel_size: 4}'"}) {
    const FittingOption option = find(all, way);
    EXPECT_GT(option.micro_batch_size, 0) << way;
    EXPECT_GT(option.exchanged, 0) << way;
    EXPECT_EQ(option.same_training, std::string(way).find("tensor") == std::string::npos) << way;
  }
  for (size_t i = 1; i < all.size(); ++i)
    if (all[i - 1].offloaded == all[i].offloaded && all[i - 1].extra_flops == all[i].extra_flops) {
      EXPECT_LE(all[i - 1].exchanged, all[i].exchanged) << all[i].settings;
    }
  // 16 bytes a parameter do not fit, 4 of 16 and 16 of 16 by four do.
  const std::vector<FittingOption> few = options_that_fit(config, {int64_t(1200) << 20, 4, {1e11, 1e9}});
  ASSERT_FALSE(few.empty());
  EXPECT_EQ(find(few, "parallel.zero_stage=1").micro_batch_size, 0);
  EXPECT_GT(find(few, "parallel.zero_stage=3").micro_batch_size, 0);
  for (size_t i = 0; i < few.size(); ++i) {
    EXPECT_LE(few[i].peak_bytes, int64_t(1200) << 20);
    EXPECT_GT(few[i].step_seconds, 0);
    if (i > 0 && (few[i - 1].offloaded > 0) == (few[i].offloaded > 0)) {
      EXPECT_LE(few[i - 1].step_seconds, few[i].step_seconds);
    }
  }
}

// A process's weights, masters, gradients and moments, as docs/parallelism.md has them.
TEST(Memory, OfOneOfSeveralProcesses) {
  const auto state = [](int world, const std::vector<std::string>& settings) {
    std::vector<std::string> words{"model.preset=gpt2", "data.seq_length=128", "precision.mode=bf16",
                                   "train.micro_batch_size=1", fmt::format("train.global_batch_size={}", world)};
    words.insert(words.end(), settings.begin(), settings.end());
    const MemoryBench b = bench_memory(load_arguments(words), false, world);
    return double(b.state_bytes) / double(b.parameters);
  };
  EXPECT_NEAR(state(4, {"parallel.zero_stage=0"}), 18, 0.02);
  EXPECT_NEAR(state(4, {"parallel.zero_stage=1"}), 6 + 12 / 4.0, 0.02);
  EXPECT_NEAR(state(4, {"parallel.zero_stage=2"}), 2 + 16 / 4.0, 0.7);  // and buckets of gradients, if at the peak
  EXPECT_NEAR(state(4, {"parallel.tensor_parallel_size=4"}), 18 / 4.0, 0.2);
  EXPECT_THROW(state(1, {"parallel.zero_stage=1"}), ConfigError);
  EXPECT_THROW(state(3, {"parallel.tensor_parallel_size=2"}), ConfigError);
}

TEST(Fit, NamesTheLargestModelOfAFamily) {
  const Config config =
      load_arguments({"model.preset=gpt2", "data.seq_length=128", "train.global_batch_size=1", "train.max_steps=10",
                      "schedule.warmup_steps=1", "eval.interval=0", "logging.sample_interval=0"})
          .config;
  const auto model = largest_that_fits(config, {int64_t(8) << 30});
  ASSERT_TRUE(model);
  EXPECT_EQ(model->preset, "gpt2-xl");  // 1.56B at 4.03 bytes and activations
  EXPECT_FALSE(largest_that_fits(config, {int64_t(100) << 20}));
}

}  // namespace
}  // namespace mixtape
