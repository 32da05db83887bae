// Steps on several ranks, which are threads here: the same losses, in strict mode the same bits, whatever is shared
// out.
#include <gtest/gtest.h>

#include <bit>
#include <mutex>

#include "core/base/philox.h"
#include "tests/checkpoint/temporary_directory.h"
#include "tests/train/thread_ranks.h"
#include "train/parallel/placement.h"
#include "train/parallel/shards.h"
#include "train/parallel/world.h"
#include "train/resume.h"
#include "train/step.h"

namespace mixtape {
namespace {

// Each of `more` is one setting or several with blanks between. About 190,000 parameters: three chunks, so that of more
// ranks some have no shard.
Config config_of(const std::vector<std::string>& more) {
  std::vector<std::string> overrides{
      "model.n_layers=2",         "model.d_model=64",       "model.n_heads=4",    "model.vocab_size=517",
      "data.seq_length=24",       "model.max_positions=48", "model.dropout=0.1",  "train.micro_batch_size=2",
      "train.max_steps=9",        "runtime.threads=1",      "determinism=strict", "train.global_batch_size=16",
      "logging.sample_interval=0"};
  for (const std::string& settings : more) {
    std::istringstream words(settings);
    for (std::string word; words >> word;) overrides.push_back(word);
  }
  return load_config({}, overrides).config;
}

// Random tokens; micro-batch n of step s has 2 n + s positions without a target.
Batch micro_batch(const Config& config, uint64_t step, int64_t number) {
  Batch b;
  b.rows = int32_t(config.train.micro_batch_size), b.row_length = int32_t(config.data.seq_length);
  for (int32_t i = 0; i < b.rows * b.row_length; ++i) {
    const auto draws = philox(philox_key(7, step), uint64_t(number), uint32_t(i), Purpose::test);
    b.tokens.push_back(int32_t(draws[0] % uint32_t(config.model.vocab_size)));
    b.targets.push_back(i < 2 * number + int64_t(step) ? -1 : int32_t(draws[1] % uint32_t(config.model.vocab_size)));
    b.positions.push_back(i % b.row_length);
    b.n_targets += b.targets.back() >= 0;
  }
  for (int32_t r = 0; r < b.rows; ++r)
    b.segments.push_back({r * b.row_length, b.row_length, r * b.row_length, b.row_length});
  b.n_tokens = b.rows * b.row_length;
  return b;
}

// A rank's part of step `step`, of n micro-batches, as the loader cuts it.
GlobalBatch batch_of(const Config& config, uint64_t step, int64_t n, const Communicator& ranks) {
  GlobalBatch g;
  const int64_t begin = n * ranks.rank() / ranks.size(), end = n * (ranks.rank() + 1) / ranks.size();
  g.of_micro_batches = n;
  g.first_micro_batch = uint64_t(begin);
  for (int64_t i = begin; i < end; ++i) {
    g.micro_batches.push_back(micro_batch(config, step, i));
    g.n_targets += g.micro_batches.back().n_targets;
    g.n_tokens += g.micro_batches.back().n_tokens;
  }
  return g;
}

// One rank's engine and step.
struct RankRun {
  RankRun(const Config& config, Communicator& ranks)
      : config(config),
        ranks(ranks),
        options(training_options(config, ranks)),
        plan(plan_training(options, config, ranks)),
        engine(options, plan.peak),
        step(engine, config, ranks) {
    engine.parameters().initialise(uint64_t(config.seed));
  }
  StepResult advance(int64_t micro_batches) {
    return step.run(batch_of(config, engine.state().attempts, micro_batches, ranks), 3e-3);
  }
  const Config& config;
  Communicator& ranks;
  EngineOptions options;
  MemoryPlan plan;
  Engine engine;
  TrainingStep step;
};

// What must not depend on the ranks: losses, norms, weights, masters and moments.
struct Outcome {
  std::vector<double> losses, norms;
  std::vector<std::byte> weights, master, m, v;
  bool operator==(const Outcome&) const = default;
};

std::vector<std::byte> whole(RankRun& run, const Tensor& flat, bool sharded, int64_t each = 1) {
  if (!flat) return {};
  const int64_t count = run.engine.model().layout().learning_flat_count() / each;
  if (sharded && run.options.sharding.ranks > 1)
    return gather_shards(run.ranks, run.engine.backend(), flat, count, each);
  std::vector<std::byte> bytes(size_t(flat.bytes()));
  run.engine.backend().copy_to_host(bytes.data(), flat);
  return bytes;
}

std::vector<std::byte> whole(RankRun& run, const Moment& moment) {
  std::vector<std::byte> all = whole(run, moment.values, true), scales = whole(run, moment.scales, true, moment_block);
  all.insert(all.end(), scales.begin(), scales.end());
  return all;
}

void collect(RankRun& run, Outcome& of_rank_0) {
  const Parameters& p = run.engine.parameters();
  Outcome now{.losses = of_rank_0.losses, .norms = of_rank_0.norms};
  now.weights = whole(run, p.weights, false);
  now.master = whole(run, p.master, true), now.m = whole(run, p.m), now.v = whole(run, p.v);
  if (run.ranks.rank() == 0) of_rank_0 = std::move(now);
}

// Steps of these numbers of micro-batches.
Outcome train(const Config& config, int world, const std::vector<int64_t>& steps) {
  Outcome outcome;
  std::vector<std::vector<std::byte>> weights(static_cast<size_t>(world));
  ThreadRanks::run(world, [&](Communicator& ranks) {
    RankRun run(config, ranks);
    for (const int64_t n : steps) {
      const StepResult result = run.advance(n);
      if (ranks.rank() > 0) continue;
      outcome.losses.push_back(result.loss);
      outcome.norms.push_back(result.grad_norm);
    }
    if (!steps.empty()) {
      EXPECT_EQ(run.engine.arena().peak(), run.plan.peak) << "rank " << ranks.rank() << " of " << world;
    }
    collect(run, outcome);
    weights[size_t(ranks.rank())] = whole(run, run.engine.parameters().weights, false);
  });
  for (int r = 1; r < world; ++r) EXPECT_EQ(weights[size_t(r)], weights[0]) << "rank " << r << " has other weights";
  return outcome;
}

TEST(Ranks, StrictModeGivesTheSameBitsOnAnyNumberOfThem) {
  for (const char* mode : {"precision.mode=fp32", "precision.mode=bf16",
                           "precision.mode=bf16 precision.master=remainder16 precision.moments=bf16",
                           "precision.mode=bf16 precision.master=none precision.moments=int8",
                           "precision.moments=fp8 optimizer.name=lion"}) {
    const std::vector<int64_t> steps{8, 8, 8};
    const Outcome one = train(config_of({mode}), 1, steps);
    EXPECT_NE(one.losses.back(), one.losses.front());
    for (const int world : {2, 4, 8})
      for (const char* zero : {"parallel.zero_stage=0", "parallel.zero_stage=1"})
        EXPECT_EQ(train(config_of({mode, zero}), world, steps), one) << world << " ranks, " << mode << ", " << zero;
  }
}

TEST(Ranks, StrictModeGivesTheSameBitsWhileTheBatchGrows) {
  const std::vector<int64_t> steps{1, 2, 3, 5, 8, 8};  // at first some ranks have nothing to do
  const std::vector<std::string> ramp{"train.batch_ramp.tokens=1000"};
  const Outcome one = train(config_of(ramp), 1, steps);
  for (const int world : {2, 4, 8}) EXPECT_EQ(train(config_of(ramp), world, steps), one) << world;
}

TEST(Ranks, MoreMicroBatchesThanLanes) {
  const Config config = config_of({"train.global_batch_size=48"});
  const Outcome one = train(config, 1, {24, 24});
  for (const int world : {2, 4, 8}) EXPECT_EQ(train(config, world, {24, 24}), one) << world;
}

// Other orders of addition, the same training.
TEST(Ranks, FastModeGivesTheSameLosses) {
  const std::vector<std::string> fast{"determinism=fast", "train.global_batch_size=12"};
  const Outcome one = train(config_of(fast), 1, {6, 6, 6});
  for (const int world : {2, 3}) {
    for (const char* zero : {"parallel.zero_stage=0", "parallel.zero_stage=1"}) {
      std::vector<std::string> more = fast;
      more.push_back(zero);
      const Outcome several = train(config_of(more), world, {6, 6, 6});
      for (size_t i = 0; i < one.losses.size(); ++i) {
        EXPECT_NEAR(several.losses[i], one.losses[i], 1e-4) << world;
        EXPECT_NEAR(several.norms[i], one.norms[i], 1e-3 * one.norms[i]) << world;
      }
    }
  }
}

// A loss scale that overflows: every rank skips, none changes.
TEST(Ranks, SkipTogether) {
  const Config config =
      config_of({"precision.mode=fp16", "precision.loss_scale.initial=1.0e+9", "parallel.zero_stage=1"});
  const Outcome none = train(config, 4, {});
  ThreadRanks::run(4, [&](Communicator& ranks) {
    RankRun run(config, ranks);
    const StepResult result = run.advance(8);
    EXPECT_FALSE(result.finite);
    EXPECT_TRUE(result.scale_adapts);
    EXPECT_EQ(run.engine.state().attempts, 1u);
    EXPECT_EQ(run.engine.state().updates, 0u);
    Outcome after;
    collect(run, after);
    if (ranks.rank() == 0) {
      EXPECT_EQ(after.weights, none.weights);
      EXPECT_EQ(after.m, none.m);
    }
  });
}

// Steps until 2 on `world` ranks, a checkpoint, and two more on `then`.
class GoOn : public testing::TestWithParam<const char*> {};

TEST_P(GoOn, AtAnyOtherNumberOfRanksAndStage) {
  const auto config = [](int stage) { return config_of({GetParam(), fmt::format("parallel.zero_stage={}", stage)}); };
  const Outcome never_stopped = train(config(0), 1, {8, 8, 8, 8});
  for (const auto& [world, stage, then, then_stage] :
       {std::array{1, 0, 4, 1}, std::array{4, 1, 2, 0}, std::array{2, 1, 8, 1}, std::array{8, 1, 1, 0}}) {
    const TemporaryDirectory directory;
    const CheckpointDirectory checkpoints(directory / "c");
    const Config before = config(stage), after = config(then_stage);
    std::filesystem::path path;
    Outcome outcome;
    ThreadRanks::run(world, [&](Communicator& ranks) {
      RankRun run(before, ranks);
      for (int i = 0; i < 2; ++i) {
        const double loss = run.advance(8).loss;
        if (ranks.rank() == 0) outcome.losses.push_back(loss);
      }
      RunState state;
      state.config = to_yaml(before);
      state.attempts = state.updates = 2;
      const std::filesystem::path written = save_run(run.engine, run.step, state, checkpoints, {}, {});
      EXPECT_EQ(written.empty(), ranks.rank() > 0);
      if (ranks.rank() == 0) path = written;
    });
    ThreadRanks::run(then, [&](Communicator& ranks) {
      RankRun run(after, ranks);
      std::optional<CheckpointReader> reader;
      if (ranks.rank() == 0) reader.emplace(path);
      EXPECT_EQ(load_run(run.engine, run.step, reader ? &*reader : nullptr).updates, 2);
      for (int i = 0; i < 2; ++i) {
        const double loss = run.advance(8).loss;
        if (ranks.rank() == 0) outcome.losses.push_back(loss);
      }
      collect(run, outcome);
    });
    EXPECT_EQ(outcome.losses, never_stopped.losses);
    EXPECT_EQ(outcome.weights, never_stopped.weights) << world << " ranks, then " << then;
    EXPECT_EQ(outcome.master, never_stopped.master) << world << " ranks, then " << then;
    EXPECT_EQ(outcome.m, never_stopped.m) << world << " ranks, then " << then;
    EXPECT_EQ(outcome.v, never_stopped.v) << world << " ranks, then " << then;
  }
}
INSTANTIATE_TEST_SUITE_P(Ranks, GoOn,
                         testing::Values("precision.mode=bf16",
                                         "precision.mode=bf16 precision.master=remainder16 precision.moments=int8",
                                         "precision.mode=bf16 precision.master=none precision.moments=fp8"));

TEST(Ranks, ShardsAreWholeChunksAndAllOfThem) {
  for (const int64_t elements : {64, 65536, 65600, 10 * 65536, 1000000})
    for (const int ranks : {1, 2, 3, 8}) {
      int64_t end = 0;
      for (int r = 0; r < ranks; ++r) {
        const Shard shard = shard_of(elements, {r, ranks});
        EXPECT_EQ(shard.begin, end);
        EXPECT_TRUE(shard.count == 0 || shard.begin % chunk_elements == 0);
        EXPECT_LE(shard.count, shard_of(elements, {0, ranks}).count);
        end = shard.end();
      }
      EXPECT_EQ(end, elements);
    }
}

// What stage 1 saves: masters and moments of all but the largest shard.
TEST(Ranks, APlanHasTheShardsMemory) {
  const auto bytes = [](int stage, int world) {
    const Config config = config_of({"precision.mode=bf16", "model.d_model=128", "train.global_batch_size=16",
                                     fmt::format("parallel.zero_stage={}", stage)});
    const auto ranks = planned_rank(world);
    return plan_training(training_options(config, *ranks), config, *ranks).at_peak;
  };
  const auto whole = bytes(0, 1), alone = bytes(1, 1), half = bytes(1, 2);
  EXPECT_EQ(whole, alone);
  for (const Category c : {Category::master, Category::optimizer}) {
    EXPECT_LT(half[int(c)], 0.6 * double(whole[int(c)]));
    EXPECT_GE(half[int(c)], whole[int(c)] / 2);
  }
  EXPECT_EQ(half[int(Category::parameters)], whole[int(Category::parameters)]);
}

TEST(Ranks, TellEachOther) {
  ThreadRanks::run(3, [](Communicator& ranks) {
    EXPECT_EQ(broadcast_text(ranks, ranks.rank() == 0 ? "from the first" : "x"), "from the first");
    EXPECT_EQ(broadcast_number(ranks, 7 + ranks.rank()), 7);
    EXPECT_FALSE(on_any(ranks, false));
    EXPECT_TRUE(on_any(ranks, ranks.rank() == 2));
    EXPECT_EQ(places_of(ranks).size(), 3u);
    const auto compared = [&](std::string text) { expect_same(ranks, std::as_bytes(std::span(text)), "differs"); };
    EXPECT_NO_THROW(compared("weights"));
    if (ranks.rank() == 2) {
      EXPECT_THROW(compared("Weights"), Error);
    } else {
      EXPECT_NO_THROW(compared("weights"));
    }
  });
}

Place place(const char* machine, std::initializer_list<int> cores, int of_machine) {
  Place p;
  std::strcpy(p.machine, machine);
  CPU_ZERO(&p.cores);
  for (const int core : cores) CPU_SET(core, &p.cores);
  p.of_machine = of_machine;
  return p;
}

TEST(Placement, SharesCoresFairly) {
  const std::vector<Place> unbound{place("a", {0, 1, 2, 3}, 4), place("a", {0, 1, 2, 3}, 4), place("b", {0, 1}, 2)};
  EXPECT_EQ(fair_threads(unbound, 0), 2);
  EXPECT_EQ(fair_threads(unbound, 2), 2);
  const std::vector<Place> crowded(5, place("a", {0, 1}, 2));
  EXPECT_EQ(fair_threads(crowded, 4), 1);
  EXPECT_EQ(binding_advice(unbound), "");
}

TEST(Placement, SeesCoresThatNobodyMayUse) {
  EXPECT_NE(binding_advice({place("a", {0}, 8), place("a", {1}, 8)}).find("--bind-to none"), std::string::npos);
  EXPECT_EQ(binding_advice({place("a", {0}, 2), place("a", {1}, 2)}), "");
}

}  // namespace
}  // namespace mixtape
