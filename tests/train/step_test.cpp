// A step of training on an engine: the memory that was planned, the choices that were made.
#include "train/step.h"

#include <gtest/gtest.h>

#include <functional>

#include "core/base/philox.h"
#include "train/generate.h"

namespace mixtape {
namespace {

Config small() {
  Config c;
  c.model.n_layers = 2, c.model.d_model = 64, c.model.n_heads = 4, c.model.vocab_size = 517, c.model.max_positions = 48;
  c.data.seq_length = 48;
  c.train.micro_batch_size = 2, c.train.global_batch_size = 6;
  c.logging.sample_interval = 0;
  c.determinism = Determinism::strict;
  return c;
}

// Random tokens; every `gap`-th position has no target, as at the end of a document.
Batch micro_batch(const Config& config, int gap, uint64_t number) {
  Batch b;
  b.rows = int32_t(config.train.micro_batch_size), b.row_length = int32_t(config.data.seq_length);
  for (int32_t i = 0; i < b.rows * b.row_length; ++i) {
    const auto draws = philox(philox_key(7), number, uint32_t(i), Purpose::test);
    b.tokens.push_back(int32_t(draws[0] % uint32_t(config.model.vocab_size)));
    b.targets.push_back(gap > 0 && i % gap == 0 ? -1 : int32_t(draws[1] % uint32_t(config.model.vocab_size)));
    b.positions.push_back(i % b.row_length);
    b.n_targets += b.targets.back() >= 0;
  }
  for (int32_t r = 0; r < b.rows; ++r)
    b.segments.push_back({r * b.row_length, b.row_length, r * b.row_length, b.row_length});
  b.n_tokens = b.rows * b.row_length;
  return b;
}

GlobalBatch global_batch(const Config& config, int gap) {
  GlobalBatch g;
  for (int64_t i = 0; i < config.train.global_batch_size / config.train.micro_batch_size; ++i) {
    g.micro_batches.push_back(micro_batch(config, gap, uint64_t(i)));
    g.n_targets += g.micro_batches.back().n_targets;
    g.n_tokens += g.micro_batches.back().n_tokens;
  }
  return g;
}

struct PlannedRun {
  std::string name;
  void (*change)(Config&);
};
void PrintTo(const PlannedRun& run, std::ostream* out) { *out << run.name; }

class Plan : public testing::TestWithParam<PlannedRun> {};

// Steps, validations and samples, in the order of a run and more than once: the arena's peak is the plan's to the byte,
// and an arena of that size was enough.
TEST_P(Plan, IsThePeakOfTheRun) {
  Config config = small();
  GetParam().change(config);
  const EngineOptions options = training_options(config);
  const MemoryPlan plan = plan_training(options, config);
  Engine engine(options, plan.peak);
  engine.parameters().initialise(uint64_t(config.seed));
  TrainingStep step(engine, config);
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(step.run(global_batch(config, i), 1e-3).finite);
    engine.load(micro_batch(config, 0, 99));
    engine.run_micro_batch(false);
    if (config.logging.sample_interval == 0) continue;
    const size_t prompts = config.logging.sample_prompts.size();
    Generator(engine, int64_t(prompts), options.row_length)
        .generate(std::vector<std::vector<int32_t>>(prompts, {1, 2, 3}),
                  {.max_new_tokens = config.logging.sample_tokens});
  }
  EXPECT_EQ(engine.arena().peak(), plan.peak);
  EXPECT_EQ(engine.arena().at_peak(), plan.at_peak);
  EXPECT_LE(engine.arena().by_category()[int(Category::activations)], 0) << "activations outlive their step";
}

const PlannedRun planned_runs[] = {
    {"fp32", [](Config&) {}},
    {"one_micro_batch", [](Config& c) { c.train.global_batch_size = 2; }},
    {"bf16", [](Config& c) { c.precision.mode = PrecisionMode::bf16; }},
    {"bf16_without_masters",
     [](Config& c) { c.precision.mode = PrecisionMode::bf16, c.precision.master = MasterWeights::none; }},
    {"bf16_with_remainders_and_int8_moments",
     [](Config& c) {
       c.precision.mode = PrecisionMode::bf16, c.precision.master = MasterWeights::remainder16;
       c.precision.moments = MomentFormat::int8;
     }},
    {"bf16_moments", [](Config& c) { c.precision.moments = MomentFormat::bf16; }},
    {"fp8_moments", [](Config& c) { c.precision.moments = MomentFormat::fp8; }},
    {"adam", [](Config& c) { c.optimizer.name = OptimizerKind::adam; }},
    {"sgd", [](Config& c) { c.optimizer.name = OptimizerKind::sgd; }},
    {"muon",
     [](Config& c) {
       c.optimizer.name = OptimizerKind::muon, c.precision.moments = MomentFormat::bf16;
       c.model.position = Position::rope, c.model.activation = Activation::swiglu;  // tensors stored as one
     }},
    {"lion", [](Config& c) { c.optimizer.name = OptimizerKind::lion, c.precision.moments = MomentFormat::int8; }},
    {"fp16", [](Config& c) { c.precision.mode = PrecisionMode::fp16, c.precision.loss_scale.initial = 1; }},
    {"fp8", [](Config& c) { c.precision.mode = PrecisionMode::fp8; }},
    {"fp8_of_full_recomputation_without_bias",
     [](Config& c) {
       c.precision.mode = PrecisionMode::fp8, c.precision.fp8.amax_history = 16;
       c.memory.recompute = RecomputeMode::full, c.model.activation = Activation::swiglu, c.model.bias = false;
     }},
    {"int8_qat", [](Config& c) { c.precision.mode = PrecisionMode::int8_qat; }},
    {"keeps_all", [](Config& c) { c.memory.recompute = RecomputeMode::none; }},
    {"full", [](Config& c) { c.memory.recompute = RecomputeMode::full, c.precision.mode = PrecisionMode::bf16; }},
    {"fast", [](Config& c) { c.determinism = Determinism::fast; }},
    {"one_thread", [](Config& c) { c.runtime.threads.emplace(1); }},
    {"small_loss_chunks", [](Config& c) { c.memory.loss_chunk_tokens.emplace(10); }},
    {"dropout", [](Config& c) { c.model.dropout = c.model.attention_dropout = 0.1; }},
    {"samples",
     [](Config& c) {
       c.logging.sample_interval = 1, c.logging.sample_prompts = {"a", "b", "c"};
     }},
    {"llama",
     [](Config& c) {
       c.model.position = Position::rope, c.model.norm = NormKind::rmsnorm, c.model.activation = Activation::swiglu;
       c.model.n_kv_heads = 2, c.model.bias = false, c.model.tied_embeddings = false;
     }},
    {"adafactor", [](Config& c) { c.optimizer.name = OptimizerKind::adafactor; }},
    {"adafactor_with_a_first_moment",
     [](Config& c) {
       c.optimizer.name = OptimizerKind::adafactor, c.optimizer.adafactor.beta1 = 0.9;
       c.precision.mode = PrecisionMode::bf16;
     }},
    {"scaled_adamw", [](Config& c) { c.optimizer.scale_parameter.emplace(true); }},
    {"bloom", [](Config& c) { c.model.position = Position::alibi, c.model.embedding_norm = true; }},
};
INSTANTIATE_TEST_SUITE_P(Runs, Plan, testing::ValuesIn(planned_runs), [](const auto& run) { return run.param.name; });

// The state of each rule in bytes, a scale for each tensor included.
TEST(Step, TheOptimizersStateIsAsLargeAsItsRuleNeeds) {
  const auto bytes = [](auto change) {
    Config config = small();
    change(config);
    return plan_training(training_options(config), config).at_peak[int(Category::optimizer)];
  };
  const Config config = small();
  const Transformer model(config.model, 48);
  Engine engine(training_options(config));
  const int64_t flat = model.layout().flat_count(), moments = model.layout().factored_count();
  const auto scales = int64_t(engine.parameters().update_tensors(0).size());
  EXPECT_LT(moments, flat / 20);
  const auto near = [](int64_t found, int64_t elements) {  // allocations are rounded up
    EXPECT_GE(found, 4 * elements);
    EXPECT_LT(found, 4 * elements + 1024);
  };
  near(bytes([](Config&) {}), 2 * flat);
  near(bytes([](Config& c) { c.optimizer.scale_parameter.emplace(true); }), 2 * flat + scales);
  near(bytes([](Config& c) { c.optimizer.name = OptimizerKind::adafactor; }), moments + scales);
  near(bytes([](Config& c) { c.precision.moments = MomentFormat::bf16; }), flat);
  near(bytes([](Config& c) { c.precision.moments = MomentFormat::int8; }), flat / 2 + 2 * flat / 256);
  near(bytes([](Config& c) { c.precision.moments = MomentFormat::fp8; }), flat / 2 + 2 * flat / 256);
  near(bytes([](Config& c) { c.optimizer.name = OptimizerKind::sgd; }), flat);
  near(bytes([](Config& c) { c.optimizer.name = OptimizerKind::lion, c.precision.moments = MomentFormat::int8; }),
       flat / 4 + flat / 256);
  near(bytes([](Config& c) { c.optimizer.name = OptimizerKind::muon; }), flat + model.layout().without_hidden_count());
  EXPECT_LT(model.layout().without_hidden_count(), flat / 2);
  EXPECT_EQ(bytes([](Config& c) { c.optimizer.name = OptimizerKind::sgd, c.optimizer.sgd.momentum = 0; }), 0);
  near(bytes([](Config& c) {
         c.optimizer.name = OptimizerKind::adafactor, c.optimizer.scale_parameter.emplace(false);
         c.optimizer.adafactor.beta1 = 0.9;
       }),
       flat + moments);
}

// A small model at its start, changed in some way.
struct Fresh {
  explicit Fresh(const std::function<void(Config&)>& change)
      : config([&] {
          Config c = small();
          change(c);
          return c;
        }()),
        plan(plan_training(training_options(config), config)),
        engine(training_options(config), plan.peak),
        step(engine, config) {
    engine.parameters().initialise(uint64_t(config.seed));
  }

  Config config;
  MemoryPlan plan;
  Engine engine;
  TrainingStep step;
};

// Weights of 16 bits alone: 4 bytes a parameter less, and nearly the same training. To nearest, such steps would be
// lost.
TEST(Step, WeightsWithoutMastersLearn) {
  const auto train = [](MasterWeights master, double rate) {
    Fresh run([&](Config& c) { c.precision.mode = PrecisionMode::bf16, c.precision.master = master; });
    double loss = 0;
    for (int i = 0; i < 25; ++i) loss = run.step.run(global_batch(run.config, 0), rate).loss;
    return std::pair{loss, run.plan.at_peak[int(Category::master)]};
  };
  const auto [with, copies] = train(MasterWeights::fp32, 2e-3);
  const auto [without, none] = train(MasterWeights::none, 2e-3);
  EXPECT_GT(copies, 0);
  EXPECT_EQ(none, 0);
  EXPECT_LT(with, 5.5);  // from log 517 = 6.25
  EXPECT_NEAR(without, with, 0.1 * with);
  // A rate below half of the last place of most weights (std 0.02, spacing 2^-13 there, half of it 6e-5).
  const double slow = train(MasterWeights::fp32, 3e-5).first;
  EXPECT_LT(slow, 6.2);
  EXPECT_NEAR(train(MasterWeights::none, 3e-5).first, slow, 0.02);
}

// A step's losses and what is in the masters.
TEST(Step, RemaindersGiveTheBitsOfFloat32Masters) {
  const auto train = [](MasterWeights master) {
    Fresh run([&](Config& c) { c.precision.mode = PrecisionMode::bf16, c.precision.master = master; });
    std::vector<double> losses;
    for (int i = 0; i < 10; ++i) losses.push_back(run.step.run(global_batch(run.config, i), 2e-3).loss);
    std::vector<std::vector<float>> masters;
    for (int id = 0; id < run.engine.model().layout().size(); ++id) {
      masters.emplace_back(size_t(run.engine.model().layout()[id].count()));
      run.engine.parameters().store(id, masters.back().data());
    }
    return std::tuple{losses, masters, run.plan.at_peak[int(Category::master)]};
  };
  const auto [losses, masters, bytes] = train(MasterWeights::fp32);
  const auto [same_losses, same_masters, half] = train(MasterWeights::remainder16);
  EXPECT_EQ(same_losses, losses);
  EXPECT_EQ(same_masters, masters);
  EXPECT_EQ(2 * half, bytes);
}

// Each format and rule from the same start: a training, and nearly that of float32 moments.
TEST(Step, NarrowMomentsTrainAlike) {
  const auto train = [](OptimizerKind name, MomentFormat format, double rate) {
    Fresh run([&](Config& c) { c.optimizer.name = name, c.precision.moments = format; });
    double loss = 0;
    for (int i = 0; i < 25; ++i) loss = run.step.run(global_batch(run.config, 0), rate).loss;
    return loss;
  };
  using enum OptimizerKind;
  for (const auto& [name, rate] : {std::pair{adamw, 2e-3}, {adam, 2e-3}, {lion, 5e-4}, {sgd, 0.05}, {muon, 2e-3}}) {
    const double wide = train(name, MomentFormat::fp32, rate);
    EXPECT_LT(wide, 6.1) << name_of(name);  // from log 517 = 6.25
    for (const MomentFormat format : {MomentFormat::bf16, MomentFormat::int8, MomentFormat::fp8}) {
      if (name == muon && format != MomentFormat::bf16) continue;  // refused
      EXPECT_NEAR(train(name, format, rate), wide, 0.02 * wide) << name_of(name) << " " << name_of(format);
    }
  }
}

// How many positions have a target changes from step to step. If that made new shapes of products, each would be timed
// when it is first met, and a run that was stopped and resumed would choose otherwise than one that was not.
TEST(Step, TheFirstMeetsAllShapesOfARun) {
  Config config = small();
  config.determinism = Determinism::fast;
  for (const int64_t chunk : {0, 40}) {
    if (chunk) config.memory.loss_chunk_tokens.emplace(chunk);
    const EngineOptions options = training_options(config);
    Engine engine(options, plan_training(options, config).peak);
    engine.parameters().initialise(uint64_t(config.seed));
    TrainingStep step(engine, config);
    step.run(global_batch(config, 50), 1e-3);
    const std::string choices = engine.backend().choices();
    for (const int gap : {0, 2, 3, 7, 31}) step.run(global_batch(config, gap), 1e-3);
    EXPECT_EQ(engine.backend().choices(), choices);
  }
}

}  // namespace
}  // namespace mixtape
