// Steps on several ranks, which are threads here: the same losses, in strict mode the same bits, whatever is shared
// out.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <numeric>

#include "core/base/clock.h"
#include "tests/checkpoint/temporary_directory.h"
#include "tests/support/thread_ranks.h"
#include "tests/train/rank_run.h"
#include "train/parallel/communication_thread.h"
#include "train/parallel/placement.h"
#include "train/parallel/shards.h"
#include "train/parallel/world.h"
#include "train/resume.h"

namespace mixtape {
namespace {

// What must not depend on the ranks: losses, norms, weights, masters and moments.
struct Outcome {
  std::vector<double> losses, norms;
  std::vector<std::byte> weights, master, m, v;
  bool operator==(const Outcome&) const = default;
};

// On rank 0, of a buffer of what learns with a number for each so many elements.
std::vector<std::byte> whole(RankRun& run, const FlatState& flat, int64_t each = 1) {
  if (!flat) return {};
  const Parameters& p = run.engine.parameters();
  const int64_t count = p.layout().learning_flat_count() / each;
  if (flat.count() != count) return gather(run.ranks, flat, p.learning_parts(each), {0, count}, 0);
  std::vector<std::byte> bytes(size_t(flat.bytes()));
  flat.read(bytes.data(), 0, flat.count());
  return bytes;
}

std::vector<std::byte> whole(RankRun& run, const Tensor& flat) {
  return whole(run, FlatState(run.engine.backend(), flat));
}

std::vector<std::byte> whole(RankRun& run, const MomentState& moment) {
  std::vector<std::byte> all = whole(run, moment.values), scales = whole(run, moment.scales, moment_block);
  all.insert(all.end(), scales.begin(), scales.end());
  return all;
}

void collect(RankRun& run, Outcome& of_rank_0) {
  const Parameters& p = run.engine.parameters();
  Outcome now;
  now.weights = whole(run, p.weights), now.master = whole(run, p.master);
  now.m = whole(run, p.m), now.v = whole(run, p.v);
  if (run.ranks.rank() > 0) return;  // rank 0 may still add a loss
  now.losses = std::move(of_rank_0.losses), now.norms = std::move(of_rank_0.norms);
  of_rank_0 = std::move(now);
}

// Steps of these numbers of micro-batches.
Outcome train(const Config& config, int world, const std::vector<int64_t>& steps) {
  Outcome outcome;
  std::vector<std::vector<std::byte>> weights(static_cast<size_t>(world));
  ThreadRanks::run(world, [&](Communicator& others) {
    CommunicationThread ranks(others);
    RankRun run(config, ranks);
    for (const int64_t n : steps) {
      const StepResult result = run.advance(n);
      if (ranks.rank() > 0) continue;
      outcome.losses.push_back(result.loss);
      outcome.norms.push_back(result.grad_norm);
    }
    // Where a step is smaller than planned, or rows have no target, a CPU needs less.
    const int64_t peak = run.engine.arena().peak(),
                  most = config.train.global_batch_size / config.train.micro_batch_size;
    EXPECT_LE(peak, run.plan.peak) << "rank " << ranks.rank() << " of " << world;
    if (!steps.empty() && steps[0] == most) {
      EXPECT_EQ(peak, run.plan.peak) << "rank " << ranks.rank() << " of " << world;
    }
    collect(run, outcome);
    if (!run.options.shards_weights) weights[size_t(ranks.rank())] = whole(run, run.engine.parameters().weights);
  });
  for (int r = 1; r < world; ++r) EXPECT_EQ(weights[size_t(r)], weights[0]) << "rank " << r << " has other weights";
  return outcome;
}

const std::vector<std::string> stages{"parallel.zero_stage=0", "parallel.zero_stage=1", "parallel.zero_stage=2",
                                      "parallel.zero_stage=3"};

TEST(Ranks, StrictModeGivesTheSameBitsOnAnyNumberOfThemAtAnyStage) {
  for (const char* mode : {"precision.mode=fp32", "precision.mode=bf16",
                           "precision.mode=bf16 precision.master=remainder16 precision.moments=bf16",
                           "precision.mode=bf16 precision.master=none precision.moments=int8",
                           "precision.moments=fp8 optimizer.name=lion"}) {
    const std::vector<int64_t> steps{8, 8, 8};
    const Outcome one = train(config_of({mode}), 1, steps);
    EXPECT_NE(one.losses.back(), one.losses.front());
    for (const int world : {2, 4, 8})
      for (const std::string& zero : stages)
        EXPECT_EQ(train(config_of({mode, zero}), world, steps), one) << world << " ranks, " << mode << ", " << zero;
  }
}

// fp8's scales are those of all ranks, from a first step on in which each tensor has its own.
TEST(Ranks, AgreeOnTheScalesOfFp8) {
  const std::vector<int64_t> steps{8, 8, 8};
  const Outcome one = train(config_of({"precision.mode=fp8"}), 1, steps);
  EXPECT_NE(one.losses, train(config_of({"precision.mode=bf16"}), 1, steps).losses);
  for (const int world : {2, 8})
    for (const std::string& zero : {stages[0], stages[1]})
      EXPECT_EQ(train(config_of({"precision.mode=fp8", zero}), world, steps), one) << world << " ranks, " << zero;
}

TEST(Ranks, StrictModeGivesTheSameBitsWhileTheBatchGrows) {
  const std::vector<int64_t> steps{1, 2, 3, 5, 8, 8};  // at first some ranks have nothing to do
  const std::vector<std::string> ramp{"train.batch_ramp.tokens=1000"};
  const Outcome one = train(config_of(ramp), 1, steps);
  for (const int world : {2, 4, 8})
    for (const std::string& zero : stages)
      EXPECT_EQ(train(config_of({ramp[0], zero}), world, steps), one) << world << " ranks, " << zero;
}

TEST(Ranks, MoreMicroBatchesThanLanes) {
  const std::string batch = "train.global_batch_size=48";
  const Outcome one = train(config_of({batch}), 1, {24, 24});
  for (const int world : {2, 4, 8})
    for (const std::string& zero : stages)
      EXPECT_EQ(train(config_of({batch, zero}), world, {24, 24}), one) << world << " ranks, " << zero;
}

// Other orders of addition, the same training.
TEST(Ranks, FastModeGivesTheSameLosses) {
  const std::vector<std::string> fast{"determinism=fast", "train.global_batch_size=12"};
  const Outcome one = train(config_of(fast), 1, {6, 6, 6});
  for (const int world : {2, 3}) {
    for (const std::string& zero : stages) {
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
       {std::array{1, 0, 4, 1}, std::array{4, 1, 2, 0}, std::array{2, 3, 8, 1}, std::array{8, 2, 1, 0},
        std::array{4, 0, 2, 3}, std::array{2, 2, 4, 3}, std::array{4, 3, 2, 2}}) {
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

// Of every bucket a part for each, whole chunks of the flat buffer unless the bucket ends in one; all as much.
TEST(Ranks, ShardsAreAllOfTheBucketsAndEven) {
  for (const std::vector<int64_t>& sizes : {std::vector<int64_t>{64}, {65536, 100, 400000, 65600}, {640000, 640000}})
    for (const int ranks : {1, 2, 3, 8, 16}) {
      std::vector<GradientBucket> buckets;
      int64_t elements = 0;
      for (const int64_t n : sizes) {
        buckets.push_back({.run = {elements, n}, .parameters = {}});
        elements += n;
      }
      std::vector<int64_t> owned(static_cast<size_t>(ranks));
      for (int me = 0; me < ranks; ++me) {
        const Shards shards(buckets, elements, {me, ranks});
        for (size_t b = 0; b < buckets.size(); ++b) {
          int64_t end = buckets[b].run.begin;
          for (int r = 0; r < ranks; ++r) {
            const auto run = shards.of_bucket(int(b), r).run;
            EXPECT_EQ(run.begin, end);
            EXPECT_TRUE(run.count == 0 || run.begin % chunk_elements == 0 || run.begin == buckets[b].run.begin);
            EXPECT_EQ(shards.counts_of(int(b))[size_t(r)], run.count);
            end = run.end();
          }
          EXPECT_EQ(end, buckets[b].run.end());
        }
        int64_t at = 0;
        for (const Shards::Part& part : shards.own()) {
          EXPECT_EQ(part.at, at);
          at += part.run.count;
        }
        EXPECT_EQ(at, shards.own_count());
        owned[size_t(me)] = at;
      }
      EXPECT_EQ(std::accumulate(owned.begin(), owned.end(), int64_t(0)), elements);
      EXPECT_LE(std::ranges::max(owned) - std::ranges::min(owned), 2 * chunk_elements) << ranks;
    }
}

// What a stage saves: all but a W-th, of masters and moments, of gradients, of weights. On the way are two blocks of
// the model at most. Of all ranks as they train, of which each has what its plan says.
TEST(Ranks, HaveTheShardsMemory) {
  constexpr int64_t d_model = 256, layers = 12, block = 12 * d_model * d_model;
  const auto bytes = [&](int stage, int world) {
    const Config config = config_of({"precision.mode=bf16", fmt::format("model.d_model={}", d_model),
                                     fmt::format("model.n_layers={}", layers), "train.global_batch_size=16",
                                     "determinism=fast", fmt::format("parallel.zero_stage={}", stage)});
    std::vector<CategoryBytes> of_ranks(static_cast<size_t>(world));
    ThreadRanks::run(world, [&](Communicator& ranks) {
      RankRun run(config, ranks);
      run.advance(8);
      if (stage == 3) run.advance(8);  // now that it is known in which order weights are read
      EXPECT_EQ(run.engine.arena().peak(), run.plan.peak);
      EXPECT_EQ(run.engine.arena().at_peak(), run.plan.at_peak);
      of_ranks[size_t(ranks.rank())] = run.engine.arena().at_peak();
    });
    return of_ranks;
  };
  const auto of = [](const CategoryBytes& bytes, Category c) { return double(bytes[size_t(c)]); };
  const CategoryBytes whole = bytes(0, 1)[0];
  EXPECT_EQ(whole, bytes(3, 1)[0]);
  for (const int world : {2, 4})
    for (const int stage : {1, 2, 3})
      for (const CategoryBytes& part : bytes(stage, world)) {
        // A part is whole chunks; `way`: of two blocks.
        const auto share = [&](Category c, bool shared, double element, double way) {
          const double least = of(whole, c) / (shared ? world : 1), chunk = double(chunk_elements) * element;
          const std::string what = fmt::format("{}, stage {}, {} ranks", name_of(c), stage, world);
          EXPECT_GE(of(part, c), 0.999 * least - chunk) << what;
          EXPECT_LE(of(part, c), 1.001 * least + chunk + (shared ? 2.0 * block * way : 0)) << what;
        };
        share(Category::master, true, 4, 0), share(Category::optimizer, true, 8, 0);
        share(Category::gradients, stage >= 2, 4, 4), share(Category::parameters, stage == 3, 2, 2);
      }
}

// Buckets are on their way while backward goes on, in their order, and all have arrived before the update.
TEST(Ranks, ExchangeWhileBackwardGoesOn) {
  for (const std::string& zero : stages) {
    const Config config = config_of({"model.n_layers=6", "model.d_model=128", zero});
    ThreadRanks::run(2, [&](Communicator& others) {
      CommunicationThread ranks(others);
      RankRun run(config, ranks);
      run.advance(8);
      struct Watch final : TapeObserver {
        void begin(std::string_view, bool) override {}
        void end(std::string_view, bool backward) override {
          if (backward) last_backward = now_seconds();
        }
        double last_backward = 0;
      } watch;
      run.engine.tape().set_observer(&watch);
      ranks.take_trace();
      ranks.trace();
      run.advance(2);  // a micro-batch for each
      run.engine.tape().set_observer(nullptr);
      int in_backward = 0, buckets = 0;
      double before = 0;
      for (const CommunicationThread::Span& span : ranks.take_trace()) {
        if (std::string_view(span.name) != "gradients") continue;
        ++buckets;
        in_backward += span.begun < watch.last_backward;
        EXPECT_GE(span.begun, before);
        before = span.done;
      }
      EXPECT_EQ(buckets, run.engine.parameters().buckets().size());
      EXPECT_GE(buckets, 6);
      // The last ones are complete with backward's last operations.
      EXPECT_GE(in_backward, buckets / 2) << zero;
    });
  }
}

TEST(CommunicationThread, DoesJobsInOrderAndPassesErrorsOn) {
  CommunicationThread ranks(single_process());
  std::vector<int> done;
  int64_t last = 0;
  for (int i = 0; i < 100; ++i) last = ranks.post("count", [&done, i](Communicator&) { done.push_back(i); });
  ranks.wait(last);
  ASSERT_EQ(done.size(), 100u);
  EXPECT_TRUE(std::ranges::is_sorted(done));
  int64_t numbers[] = {3};
  ranks.all_reduce(std::span(numbers));
  EXPECT_EQ(numbers[0], 3);
  const int64_t bad = ranks.post("fail", [](Communicator&) { throw Error("on the way"); });
  const int64_t after = ranks.post("never", [&](Communicator&) { done.clear(); });
  EXPECT_THROW(ranks.wait(bad), Error);
  EXPECT_THROW(ranks.wait(after), Error);
  EXPECT_THROW(ranks.barrier(), Error);
  EXPECT_EQ(done.size(), 100u);
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

Place place(int first_process, std::initializer_list<int> cores, int of_machine) {
  Place p;
  std::strcpy(p.machine, "node");  // as machines in containers may all be called
  p.first_process = first_process;
  CPU_ZERO(&p.cores);
  for (const int core : cores) CPU_SET(core, &p.cores);
  p.of_machine = of_machine;
  return p;
}

TEST(Placement, SharesCoresFairly) {
  const std::vector<Place> unbound{place(0, {0, 1, 2, 3}, 4), place(0, {0, 1, 2, 3}, 4), place(2, {0, 1}, 2)};
  EXPECT_EQ(fair_threads(unbound, 0), 2);
  EXPECT_EQ(fair_threads(unbound, 2), 2);
  EXPECT_EQ(process_of_machine(unbound, 1), 1);
  EXPECT_EQ(process_of_machine(unbound, 2), 0);
  const std::vector<Place> crowded(5, place(0, {0, 1}, 2));
  EXPECT_EQ(fair_threads(crowded, 4), 1);
  EXPECT_EQ(binding_advice(unbound), "");
}

TEST(Placement, SeesCoresThatNobodyMayUse) {
  EXPECT_NE(binding_advice({place(0, {0}, 8), place(0, {1}, 8)}).find("--bind-to none"), std::string::npos);
  EXPECT_EQ(binding_advice({place(0, {0}, 2), place(0, {1}, 2)}), "");
}

}  // namespace
}  // namespace mixtape
