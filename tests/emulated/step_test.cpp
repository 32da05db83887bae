// Steps of training on the emulated GPU, as the host sees them: it waits once a step, repeats what was recorded, and
// needs the memory that was planned.
#include "train/step.h"

#include <gtest/gtest.h>

#include "core/base/philox.h"
#include "cuda/emulator/device.h"
#include "cuda/emulator/runtime.h"
#include "cuda/emulator/threads.h"
#include "tests/checkpoint/temporary_directory.h"

namespace mixtape {
namespace {

Config small_on_gpu() {
  Config c;
  c.device = "cuda";
  c.model.n_layers = 1, c.model.d_model = 32, c.model.n_heads = 2, c.model.vocab_size = 61, c.model.max_positions = 16;
  c.model.dropout = 0.1;
  c.data.seq_length = 16;
  c.train.micro_batch_size = 2, c.train.global_batch_size = 6;
  c.precision.mode = PrecisionMode::bf16;
  c.logging.sample_interval = 0;
  return c;
}

GlobalBatch batch_of(const Config& config, uint64_t number) {
  GlobalBatch global;
  for (int64_t i = 0; i < config.train.global_batch_size / config.train.micro_batch_size; ++i) {
    Batch& b = global.micro_batches.emplace_back();
    b.rows = int32_t(config.train.micro_batch_size), b.row_length = int32_t(config.data.seq_length);
    for (int32_t t = 0; t < b.rows * b.row_length; ++t) {
      const auto draws = philox(philox_key(7, uint64_t(i)), number, uint32_t(t), Purpose::test);
      b.tokens.push_back(int32_t(draws[0] % uint32_t(config.model.vocab_size)));
      b.targets.push_back(int32_t(draws[1] % uint32_t(config.model.vocab_size)));
      b.positions.push_back(t % b.row_length);
    }
    for (int32_t r = 0; r < b.rows; ++r)
      b.segments.push_back({r * b.row_length, b.row_length, r * b.row_length, b.row_length});
    b.n_targets = b.n_tokens = b.rows * b.row_length;
    global.n_targets += b.n_targets;
    global.n_tokens += b.n_tokens;
  }
  return global;
}

struct GpuRule {
  OptimizerKind name;
  MasterWeights master = MasterWeights::fp32;
  MomentFormat moments = MomentFormat::fp32;
  PrecisionMode mode = PrecisionMode::bf16;
  int compute_capability = 80;  // from 89 on 8-bit operands are multiplied as codes
};

class GpuStep : public testing::TestWithParam<GpuRule> {
 protected:
  GpuStep() {
    config.optimizer.name = GetParam().name;
    config.precision.master = GetParam().master;
    config.precision.moments = GetParam().moments;
    config.precision.mode = GetParam().mode;
    emulator::device().compute_capability = GetParam().compute_capability;
  }
  ~GpuStep() override { emulator::device() = before; }

  // Losses of steps with rates that change and batches that differ.
  std::vector<double> train(Engine& engine, int steps) const {
    engine.parameters().initialise(3);
    TrainingStep step(engine, config);
    std::vector<double> losses;
    for (int i = 0; i < steps; ++i) losses.push_back(step.run(batch_of(config, uint64_t(i)), 1e-2 / (i + 1)).loss);
    return losses;
  }

  Config config = small_on_gpu();

 private:
  const emulator::DeviceProperties before = emulator::device();
};

TEST_P(GpuStep, HasTheMemoryThatWasPlanned) {
  const EngineOptions options = training_options(config);
  const MemoryPlan plan = plan_training(options, config);
  Engine engine(options, plan.memory());
  train(engine, 3);
  engine.load(batch_of(config, 9).micro_batches[0]);
  engine.run_micro_batch(false);
  EXPECT_EQ(engine.arena().peak(), plan.peak);
  EXPECT_EQ(engine.arena().at_peak(), plan.at_peak);
}

// Two slots of inputs: the third micro-batch waits for the first to have been sent, which on a GPU it long has.
TEST_P(GpuStep, WaitsForTheResultAloneAndRepeatsWhatWasRecorded) {
  const EngineOptions options = training_options(config);
  Engine engine(options, plan_training(options, config).peak);
  engine.parameters().initialise(3);
  TrainingStep step(engine, config);
  for (int i = 0; i < 2; ++i) step.run(batch_of(config, uint64_t(i)), 1e-2);
  const int64_t requests = engine.arena().requests();
  for (int i = 2; i < 5; ++i) {
    const auto before = emulator::host_counts();
    const int64_t launches = emulator::counts().launches;
    step.run(batch_of(config, uint64_t(i)), 1e-2);
    EXPECT_LE(emulator::host_counts().waits - before.waits, 2) << i;
    EXPECT_EQ(emulator::host_counts().replays - before.replays, 4) << "3 micro-batches and an update";
    EXPECT_GT(emulator::counts().launches - launches, 100) << "the work of a step";
  }
  EXPECT_EQ(engine.arena().requests(), requests) << "a recorded step asks for memory";
}

// The learning rate, dropout's keys and the inputs are not part of what is recorded.
TEST_P(GpuStep, IsTheSameRecordedAndNot) {
  const auto losses = [&](bool graphs, const std::string& device) {
    config.runtime.cuda_graphs.emplace(graphs);
    config.device = device;
    const EngineOptions options = training_options(config);
    Engine engine(options, plan_training(options, config).peak);
    return train(engine, 4);
  };
  const std::vector<double> recorded = losses(true, "cuda"), cpu = losses(false, "cpu");
  EXPECT_EQ(recorded, losses(false, "cuda"));
  for (size_t i = 0; i < recorded.size(); ++i) EXPECT_NEAR(recorded[i], cpu[i], 0.01 * cpu[i]) << i;
}

// Gradients that backward applies: recorded with it, in buckets whose memory comes and goes, and with the numbers of
// the update after backward.
TEST_P(GpuStep, FusesGradientsIntoTheUpdate) {
  config.train.global_batch_size = config.train.micro_batch_size;
  config.train.clip_grad = 0;
  config.train.on_nonfinite.policy = NonfinitePolicy::stop;
  // Stored gradients of the type that fused ones have; Adafactor's are stored in fp32 alone.
  const bool narrow = config.optimizer.name != OptimizerKind::adafactor;
  if (!narrow) config.precision.mode = PrecisionMode::fp32, config.precision.master = MasterWeights::fp32;
  const auto losses = [&](GradientStorage gradients, bool graphs, const std::string& device) {
    config.precision.gradients = gradients;
    config.runtime.cuda_graphs.emplace(graphs);
    config.device = device;
    const EngineOptions options = training_options(config);
    const MemoryPlan plan = plan_training(options, config);
    Engine engine(options, plan.memory());
    const std::vector<double> result = train(engine, 4);
    EXPECT_EQ(engine.arena().peak(), plan.peak);
    EXPECT_EQ(engine.arena().at_peak(), plan.at_peak);
    return result;
  };
  const std::vector<double> recorded = losses(GradientStorage::fused, true, "cuda");
  EXPECT_EQ(recorded, losses(GradientStorage::fused, false, "cuda"));
  EXPECT_EQ(recorded, losses(narrow ? GradientStorage::bf16 : GradientStorage::fp32, true, "cuda"));
  const std::vector<double> cpu = losses(GradientStorage::fused, false, "cpu");
  for (size_t i = 0; i < recorded.size(); ++i) EXPECT_NEAR(recorded[i], cpu[i], 0.01 * cpu[i]) << i;
}

// Masters and moments, and what layers keep for backward, in memory of the host or on disk: the same losses and
// weights, in less memory, and nobody waits.
TEST_P(GpuStep, TakesWhatIsOffloadedThroughItsMemory) {
  const TemporaryDirectory directory;
  config.model.n_layers = 3;
  config.runtime.cuda_graphs.emplace(false);
  struct Trained {
    std::vector<double> losses;
    std::vector<std::byte> weights;
    MemoryPlan plan;
  };
  const auto trained = [&](OffloadMode mode, bool on_disk) {
    config.memory.offload = mode;
    config.memory.offload_directory.reset();
    if (on_disk) config.memory.offload_directory = directory.path.string();
    const EngineOptions options = training_options(config);
    Trained result{.plan = plan_training(options, config)};
    Engine engine(options, result.plan.memory());
    result.losses = train(engine, 2);
    EXPECT_EQ(engine.arena().peak(), result.plan.peak);
    EXPECT_EQ(engine.arena().at_peak(), result.plan.at_peak);
    EXPECT_EQ(engine.tape().saved().most_outside(), result.plan.offloaded_activations);
    result.weights.resize(size_t(engine.parameters().weights.bytes()));
    engine.backend().copy_to_host(result.weights.data(), engine.parameters().weights);
    TrainingStep step(engine, config);
    step.run(batch_of(config, 7), 1e-2);
    const int64_t waits = emulator::host_counts().waits;
    step.run(batch_of(config, 8), 1e-2);
    EXPECT_LE(emulator::host_counts().waits - waits, 2) << "for inputs and the result alone";
    return result;
  };
  const Trained held = trained(OffloadMode::none, false);
  EXPECT_EQ(held.plan.offloaded, 0);
  std::vector<std::pair<OffloadMode, bool>> ways = {{OffloadMode::all, true}};
  if (GetParam().name == OptimizerKind::adamw && GetParam().moments == MomentFormat::int8)
    ways.insert(ways.end(),
                {{OffloadMode::optimizer, false}, {OffloadMode::activations, false}, {OffloadMode::all, false}});
  for (const auto& [mode, on_disk] : ways) {
    const Trained outside = trained(mode, on_disk);
    EXPECT_EQ(outside.losses, held.losses) << int(mode) << on_disk;
    EXPECT_EQ(outside.weights, held.weights) << int(mode) << on_disk;
    EXPECT_GT(outside.plan.offloaded, 0);
    EXPECT_EQ(outside.plan.offloaded_activations > 0, mode != OffloadMode::optimizer);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Rules, GpuStep,
    testing::Values(GpuRule{OptimizerKind::adamw},
                    GpuRule{OptimizerKind::adamw, MasterWeights::remainder16, MomentFormat::int8},
                    GpuRule{OptimizerKind::adafactor},
                    GpuRule{OptimizerKind::lion, MasterWeights::none, MomentFormat::fp8},
                    GpuRule{OptimizerKind::muon, MasterWeights::remainder16, MomentFormat::bf16},
                    GpuRule{OptimizerKind::adamw, MasterWeights::none, MomentFormat::fp32, PrecisionMode::fp8},
                    GpuRule{OptimizerKind::adamw, MasterWeights::none, MomentFormat::fp32, PrecisionMode::fp8, 89},
                    GpuRule{OptimizerKind::adamw, MasterWeights::fp32, MomentFormat::fp32, PrecisionMode::int8_qat},
                    GpuRule{OptimizerKind::sgd, MasterWeights::fp32, MomentFormat::bf16}),
    [](const auto& rule) {
      return fmt::format("{}_{}_{}_{}_sm{}", rule.param.mode, rule.param.name, rule.param.master, rule.param.moments,
                         rule.param.compute_capability);
    });

}  // namespace
}  // namespace mixtape
