// Layers that several ranks share out: the same training as on one, to what other orders of addition leave.
//
// Why not the same bits: a product's inputs are cut in two, so that what one process adds up in one go is two sums,
// each rounded, and then their sum. All else is the same: weights at the start, dropout's masks, data.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <numeric>

#include "tests/checkpoint/temporary_directory.h"
#include "tests/support/thread_ranks.h"
#include "tests/train/rank_run.h"
#include "train/generate.h"
#include "train/parallel/communication_thread.h"
#include "train/parallel/shards.h"
#include "train/resume.h"

namespace mixtape {
namespace {

constexpr double tolerance = 2e-5;  // of losses and of what a parameter has changed by, relative

struct Family {
  const char* name;
  const char* settings;
};
constexpr Family families[] = {
    {"gpt", "model.attention_dropout=0.1"},
    {"gpt_recomputed", "model.attention_dropout=0.1 memory.recompute=full"},
    {"llama",
     "model.position=rope model.norm=rmsnorm model.activation=swiglu model.bias=false model.n_kv_heads=2 "
     "model.tied_embeddings=false model.d_ff=96"},
    {"bloom", "model.position=alibi model.embedding_norm=true"},
    {"opt", "model.activation=relu model.position_offset=2 model.pad_id=1"},
    {"bert",
     "model.family=encoder objective.name=masked_lm model.norm_placement=post model.final_norm=false "
     "model.embedding_norm=true model.lm_head_bias=true model.token_types=2 model.mlm_head=true model.activation=gelu"},
    {"t5",
     "model.family=encoder_decoder objective.name=span_corruption model.position=relative_bias model.norm=rmsnorm "
     "model.bias=false model.attention_scale=1 model.activation=geglu_tanh model.logit_scale=0 model.init=fan_in "
     "model.init_std=1 objective.label_smoothing=0.1"},
    {"bart",
     "model.family=encoder_decoder objective.name=denoising model.norm_placement=post model.final_norm=false "
     "model.embedding_norm=true model.activation=gelu model.init_std=0.1 memory.recompute=full"}};

// Plain steps, whose size is the gradient's: a rule that divides by it would make much of what is nearly 0. Clipped, so
// that the norm counts.
constexpr const char* plain =
    "optimizer.name=sgd optimizer.sgd.momentum=0.9 train.clip_grad=1 train.global_batch_size=8 determinism=fast";
constexpr double learning_rate = 0.1;

struct Result {
  std::vector<double> losses, norms;
  std::vector<std::string> names;
  std::vector<std::vector<float>> before, after;  // of each parameter, whole
};

// Of an fp32 buffer of all weights, on rank 0.
std::vector<std::vector<float>> parameters_of(RankRun& run, Communicator& ranks) {
  const Parameters& p = run.engine.parameters();
  const bool brings = p.storage().shards_weights || run.grid.data().rank() == 0;
  const std::vector<std::byte> all =
      gather(ranks, {run.engine.backend(), p.weights}, brings ? p.weight_parts() : std::vector<Shards::Part>{},
             {0, p.layout().whole_flat_count()}, 0);
  std::vector<std::vector<float>> list;
  if (ranks.rank() > 0) return list;
  const auto* values = reinterpret_cast<const float*>(all.data());
  for (const ParameterEntry& e : p.layout().entries())
    list.emplace_back(values + e.whole_offset, values + e.whole_offset + e.whole.count());
  return list;
}

// `ranks`: by which weights are brought together for the result.
void train(RankRun& run, Communicator& ranks, int steps, int64_t micro_batches, Result& of_rank_0) {
  Result result{.before = parameters_of(run, ranks)};
  for (int i = 0; i < steps; ++i) {
    const StepResult step = run.advance(micro_batches, learning_rate);
    result.losses.push_back(step.loss), result.norms.push_back(step.grad_norm);
  }
  EXPECT_EQ(run.engine.arena().peak(), run.plan.peak) << "rank " << run.ranks.rank();
  result.after = parameters_of(run, ranks);
  for (const ParameterEntry& e : run.engine.model().layout().entries()) result.names.push_back(e.name);
  if (run.ranks.rank() == 0) of_rank_0 = std::move(result);
}

Result train(const Config& config, int world, int steps = 3, int64_t micro_batches = 4) {
  Result result;
  ThreadRanks::run(world, [&](Communicator& others) {
    CommunicationThread ranks(others);
    RankRun run(config, ranks);
    train(run, ranks, steps, micro_batches, result);
  });
  return result;
}

// The worst relative difference, of losses, norms and of each parameter's change.
struct Difference {
  double relative = 0;
  std::string of;
  friend void PrintTo(const Difference& d, std::ostream* out) { *out << d.relative << " of " << d.of; }
  friend bool operator<(const Difference& d, double limit) { return d.relative < limit; }
  friend bool operator>(const Difference& d, double limit) { return d.relative > limit; }
};
Difference difference(const Result& a, const Result& b) {
  Difference worst;
  const auto see = [&](double relative, const std::string& of) {
    if (!(relative <= worst.relative)) worst = {std::isfinite(relative) ? relative : INFINITY, of};
  };
  for (size_t i = 0; i < a.losses.size(); ++i) {
    see(std::abs(a.losses[i] - b.losses[i]) / b.losses[i], "the loss");
    see(std::abs(a.norms[i] - b.norms[i]) / b.norms[i], "the norm");
  }
  for (size_t p = 0; p < b.after.size(); ++p) {
    double squares = 0, of_difference = 0, of_weights = 0;
    for (size_t i = 0; i < b.after[p].size(); ++i) {
      const double here = double(a.after[p][i]) - a.before[p][i], there = double(b.after[p][i]) - b.before[p][i];
      squares += there * there, of_difference += (here - there) * (here - there);
      of_weights += double(b.after[p][i]) * b.after[p][i];
    }
    // Less what weights are rounded by when they change.
    const double rounding = std::numeric_limits<float>::epsilon() * std::sqrt(of_weights);
    if (squares > 0) see(std::max(0.0, std::sqrt(of_difference) - rounding) / std::sqrt(squares), b.names[p]);
    EXPECT_EQ(a.before[p], b.before[p]) << b.names[p] << " starts otherwise";
  }
  return worst;
}

Config config_for(const std::string& settings, int size, int stage = 0) {
  return config_of({plain, settings, fmt::format("parallel.tensor_parallel_size={}", size),
                    fmt::format("parallel.zero_stage={}", stage)});
}

class TensorParallelOf : public testing::TestWithParam<Family> {};
INSTANTIATE_TEST_SUITE_P(Families, TensorParallelOf, testing::ValuesIn(families),
                         [](const auto& info) { return std::string(info.param.name); });

TEST_P(TensorParallelOf, TrainsAsOneProcess) {
  const std::string settings = GetParam().settings;
  const Result one = train(config_for(settings, 1), 1);
  EXPECT_NE(one.losses.front(), one.losses.back());
  EXPECT_LT(difference(train(config_for(settings, 2), 2), one), tolerance) << "2 ranks";
  for (const int stage : {0, 1, 2, 3})
    EXPECT_LT(difference(train(config_for(settings, 2, stage), 4), one), tolerance) << "2 x 2 ranks, stage " << stage;
  if (settings.find("n_kv_heads=2") == std::string::npos) {
    EXPECT_LT(difference(train(config_for(settings, 4), 4), one), tolerance) << "4 ranks";
  }
}

// A rank's communicator that counts what is exchanged while a model is computed, and can leave one of it out.
struct Exchanges {
  int calls = 0, left_out = -1;
  int64_t summed = 0, scattered = 0, gathered_bytes = 0;
  bool leaves_out() { return calls++ == left_out; }
};
class Watched final : public Communicator {
 public:
  Watched(Communicator& ranks, Exchanges& exchanges) : ranks_(ranks), exchanges_(exchanges) {}
  Watched(std::unique_ptr<Communicator> ranks, Exchanges& exchanges)
      : own_(std::move(ranks)), ranks_(*own_), exchanges_(exchanges) {}
  int rank() const override { return ranks_.rank(); }
  int size() const override { return ranks_.size(); }
  void all_reduce(std::span<float> values) override {
    exchanges_.summed += int64_t(values.size());
    if (!exchanges_.leaves_out()) ranks_.all_reduce(values);
  }
  void all_reduce(std::span<int64_t> values) override { ranks_.all_reduce(values); }
  void all_to_all(std::span<const float> from, std::span<const int64_t> counts, std::span<float> to) override {
    ranks_.all_to_all(from, counts, to);
  }
  void reduce_scatter(std::span<const float> from, std::span<const int64_t> counts, std::span<float> to) override {
    exchanges_.scattered += int64_t(from.size());
    if (!exchanges_.leaves_out()) return ranks_.reduce_scatter(from, counts, to);
    const int64_t at = std::accumulate(counts.begin(), counts.begin() + rank(), int64_t(0));
    std::copy_n(from.begin() + at, to.size(), to.begin());  // this rank's summand alone
  }
  void all_gather(std::span<std::byte> all, std::span<const int64_t> bytes) override {
    exchanges_.gathered_bytes += int64_t(all.size());
    if (!exchanges_.leaves_out()) return ranks_.all_gather(all, bytes);
    int64_t at = 0;
    for (int r = 0; r < size(); at += bytes[size_t(r++)])  // of the others nothing has come
      if (r != rank()) std::memset(all.data() + at, 0, size_t(bytes[size_t(r)]));
  }
  void broadcast(std::span<std::byte> data, int root) override { ranks_.broadcast(data, root); }
  void barrier() override { ranks_.barrier(); }
  std::unique_ptr<Communicator> split(int group, int size) override {
    return std::make_unique<Watched>(ranks_.split(group, size), exchanges_);
  }
  void abort(int exit_code) override { ranks_.abort(exit_code); }

 private:
  std::unique_ptr<Communicator> own_;
  Communicator& ranks_;
  Exchanges& exchanges_;
};

// A step of one micro-batch.
Result watched_step(const Config& config, Exchanges& of_rank_0) {
  Result result;
  ThreadRanks::run(2, [&](Communicator& others) {
    Exchanges exchanges{.left_out = of_rank_0.left_out};
    Watched ranks(others, exchanges);
    RankRun run(config, ranks);
    train(run, others, 1, 1, result);
    if (ranks.rank() == 0) of_rank_0 = exchanges;
  });
  return result;
}

TEST_P(TensorParallelOf, NeedsEachExchangeAndThePlanKnowsThem) {
  const std::string settings = std::string(GetParam().settings) + " train.global_batch_size=2";
  const Config config = config_for(settings, 2);
  const Result one = train(config_for(settings, 1), 1, 1, 1);
  Exchanges all;
  EXPECT_LT(difference(watched_step(config, all), one), tolerance);

  const auto ranks = planned_rank(2);
  const RankGrid grid(*ranks, 2);
  const EngineOptions options = training_options(config, grid);
  const Transformer model(options.model, options.row_length, options.decoder_length, {},
                          TensorParallel(options.layer_slice()));
  const RankTraffic traffic = model.rank_traffic(options.lengths(), double(options.rows), options.recompute);
  EXPECT_EQ(double(all.summed), traffic.summed);
  EXPECT_EQ(double(all.scattered), traffic.scattered);
  const int64_t of_losses = random_micro_batch(config, 0, 0).n_targets * 2 * 32;  // from each rank, 32 bytes a target
  EXPECT_EQ(double(all.gathered_bytes - of_losses), 4 * traffic.gathered);
  const bool recomputes = config.memory.recompute == RecomputeMode::full;
  EXPECT_GT(all.calls, 4 * 2);
  int idle = 0;
  for (int left_out = 0; left_out < all.calls; ++left_out) {
    Exchanges without{.left_out = left_out};
    const Difference made = difference(watched_step(config, without), one);
    if (!(made > 10 * tolerance))
      ++idle, std::printf("without exchange %d: %s\n", left_out, testing::PrintToString(made).c_str());
  }
  // Recomputed, what comes out of a layer before its last sum is read in backward, and that sum only by a norm after
  // it.
  const bool last_sums = recomputes && config.model.norm_placement == NormPlacement::pre;
  EXPECT_EQ(idle, last_sums ? config.model.n_layers : 0);
}

// In strict mode the same bits with any number of other groups, at any stage.
TEST(TensorParallel, StrictModeGivesTheSameBitsOnAnyNumberOfGroups) {
  const auto config = [](int stage) {
    return config_of({"parallel.tensor_parallel_size=2", fmt::format("parallel.zero_stage={}", stage)});
  };
  const Result one = train(config(0), 2, 3, 8);
  for (const int world : {4, 8})
    for (const int stage : {0, 1, 3}) {
      const Result more = train(config(stage), world, 3, 8);
      EXPECT_EQ(more.losses, one.losses) << world << " ranks, stage " << stage;
      EXPECT_EQ(more.norms, one.norms) << world << " ranks, stage " << stage;
      EXPECT_EQ(more.after, one.after) << world << " ranks, stage " << stage;
    }
}

// 16 bits are rounded otherwise, and no more than that.
TEST(TensorParallel, LearnsIn16Bits) {
  for (const std::string mode : {"precision.mode=bf16", "precision.mode=bf16 precision.master=remainder16",
                                 "precision.mode=bf16 precision.master=none precision.moments=bf16",
                                 "precision.mode=fp16 precision.loss_scale.initial=1024"}) {
    std::vector<double> losses[2];
    for (const int size : {1, 2}) {
      const Config config = config_of({mode, fmt::format("parallel.tensor_parallel_size={}", size)});
      ThreadRanks::run(size, [&](Communicator& ranks) {
        RankRun run(config, ranks);
        for (int i = 0; i < 6; ++i) {
          const StepResult result = run.advance(8);
          EXPECT_TRUE(result.finite);
          if (ranks.rank() == 0) losses[size - 1].push_back(result.loss);
        }
      });
    }
    for (size_t i = 0; i < losses[0].size(); ++i) EXPECT_NEAR(losses[1][i], losses[0][i], 0.01) << mode << i;
  }
}

std::string content(const std::filesystem::path& checkpoint) {
  return read_text_file(checkpoint / "model.safetensors") + read_text_file(checkpoint / "optimizer.safetensors");
}

// Loads a checkpoint, if there is one, makes `steps`, and saves another, from these ranks.
std::filesystem::path go_on(const Config& config, int world, const std::filesystem::path& from,
                            const CheckpointDirectory& to, int steps, double* loss = nullptr) {
  std::filesystem::path path;
  ThreadRanks::run(world, [&](Communicator& ranks) {
    RankRun run(config, ranks);
    std::optional<CheckpointReader> reader;
    if (ranks.rank() == 0 && !from.empty()) reader.emplace(from);
    RunState state;
    if (!from.empty()) state = load_run(run.engine, run.step, reader ? &*reader : nullptr);
    for (int i = 0; i < steps; ++i) {
      const double now = run.advance(4).loss;
      if (ranks.rank() == 0 && loss) *loss = now;
    }
    state.config = to_yaml(config);
    state.attempts = state.updates += steps;
    const std::filesystem::path written = save_run(run.engine, run.step, state, to, {}, {});
    EXPECT_EQ(written.empty(), ranks.rank() > 0);
    if (ranks.rank() == 0) path = written;
  });
  return path;
}

// A checkpoint is of the whole model: it comes back to the bit from any other number of ranks, and training goes on.
TEST_P(TensorParallelOf, GoesOnAtAnyOtherSize) {
  const std::string settings = std::string(GetParam().settings) + " train.global_batch_size=8 precision.mode=bf16";
  const auto config = [&](int size, int stage) {
    return config_of({settings, fmt::format("parallel.tensor_parallel_size={}", size),
                      fmt::format("parallel.zero_stage={}", stage)});
  };
  const TemporaryDirectory directory;
  const struct { int size, world, stage; } ways[] = {{1, 1, 0}, {2, 2, 0}, {2, 4, 1}, {2, 4, 3}, {1, 2, 2}};
  for (const auto& before : ways) {
    const std::string name = fmt::format("{}-{}-{}", before.size, before.world, before.stage);
    const std::filesystem::path written = go_on(config(before.size, before.stage), before.world, {},
                                                CheckpointDirectory(directory / (name + "-first")), 2);
    double straight = 0;
    go_on(config(before.size, before.stage), before.world, written, CheckpointDirectory(directory / (name + "-on")), 1,
          &straight);
    for (const auto& after : ways) {
      if (before.size == after.size && before.world == after.world) continue;
      const std::string then = fmt::format("{} to {}-{}-{}", name, after.size, after.world, after.stage);
      const std::filesystem::path again =
          go_on(config(after.size, after.stage), after.world, written, CheckpointDirectory(directory / then), 0);
      EXPECT_EQ(content(again), content(written)) << then;
      double loss = 0;
      go_on(config(after.size, after.stage), after.world, written, CheckpointDirectory(directory / (then + " on")), 1,
            &loss);
      EXPECT_NEAR(loss, straight, 0.01) << then;
    }
  }
}

// Outside of steps the ranks of a group go together, and find the same.
TEST_P(TensorParallelOf, ValidatesAndGeneratesAsOneProcess) {
  const std::string settings = GetParam().settings;
  struct Found {
    double loss = 0;
    std::vector<int32_t> predictions;
    std::vector<std::vector<int32_t>> texts;
  };
  const auto find = [&](int size) {
    std::vector<Found> found(static_cast<size_t>(size));
    const Config config = config_of({settings, "logging.sample_interval=1 model.init_std=0.3",
                                     fmt::format("parallel.tensor_parallel_size={}", size)});
    ThreadRanks::run(size, [&](Communicator& ranks) {
      RankRun run(config, ranks);
      Found& here = found[size_t(ranks.rank())];
      run.engine.state().inverse_targets = 1.f / 64;
      run.engine.upload_state();
      run.engine.load(random_micro_batch(config, 0, 1));
      here.loss = run.engine.run_micro_batch(false);
      here.predictions = run.engine.predictions();
      if (!can_generate(config.model)) return;
      Generator generator(run.engine, 1, run.options.row_length);
      here.texts = generator.generate({{5, 9, 400, 3}}, {.max_new_tokens = 6, .temperature = 0});
    });
    for (const Found& other : found) {
      EXPECT_EQ(other.loss, found[0].loss);
      EXPECT_EQ(other.predictions, found[0].predictions);
      EXPECT_EQ(other.texts, found[0].texts);
    }
    return found[0];
  };
  const Found one = find(1), two = find(2);
  EXPECT_NEAR(two.loss, one.loss, tolerance * one.loss);
  EXPECT_FALSE(one.predictions.empty());
  EXPECT_EQ(two.predictions, one.predictions);
  EXPECT_EQ(two.texts, one.texts);
}

// Each rank has about half of what is shared out, and of the vocabulary's 517 rows one has one more.
TEST(TensorParallel, CutsMatricesAndTheVocabulary) {
  const Config config = config_of({families[2].settings, "parallel.tensor_parallel_size=2"});
  std::vector<int64_t> rows(2), elements(2);
  ThreadRanks::run(2, [&](Communicator& ranks) {
    const RankGrid grid(ranks, 2);
    const EngineOptions options = training_options(config, grid);
    const Transformer model(options.model, options.row_length, 0, {}, TensorParallel(options.layer_slice()));
    const ParameterLayout& layout = model.layout();
    const auto shape = [&](const char* name) { return layout[layout.find(name)].shape; };
    EXPECT_EQ(shape("layers.0.attention.qkv.weight"), (Shape{(2 + 1 + 1) * 16, 64}));
    EXPECT_EQ(shape("layers.0.attention.out.weight"), (Shape{64, 2 * 16}));
    EXPECT_EQ(shape("layers.1.mlp.up.weight"), (Shape{2 * 48, 64}));
    EXPECT_EQ(shape("layers.1.mlp.down.weight"), (Shape{64, 48}));
    EXPECT_EQ(shape("final_norm.weight"), (Shape{64}));
    rows[size_t(ranks.rank())] = shape("embedding.token").rows();
    for (const ParameterEntry& e : layout.entries()) elements[size_t(ranks.rank())] += e.count();
    EXPECT_EQ(layout.parameter_count(), Transformer(options.model, options.row_length).layout().parameter_count());
  });
  EXPECT_EQ(rows, (std::vector<int64_t>{259, 258}));
  EXPECT_LT(elements[0], Transformer(config.model, 24).layout().parameter_count() * 51 / 100);
}

}  // namespace
}  // namespace mixtape
