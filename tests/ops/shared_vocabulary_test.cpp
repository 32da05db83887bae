// Cross-entropy where ranks share out the vocabulary, on every device: losses, predictions and gradients are those of
// one rank that has all.
#include <optional>

#include "core/ops/loss.h"
#include "core/shards.h"
#include "tests/support/op_test.h"

namespace mixtape {
namespace {

using Told = std::vector<std::vector<std::vector<std::byte>>>;  // [rank][call]

// What ranks tell each other of rows follows from what each has. So they can be played one behind another, twice: they
// tell it in the first round, and hear that of the others in the second.
class PlayedRanks final : public Exchange {
 public:
  PlayedRanks(Backend& backend, int rank, Told& told, bool hears)
      : backend_(backend), rank_(rank), told_(told), hears_(hears) {}
  int rank() const override { return rank_; }
  int size() const override { return int(told_.size()); }
  Ticket all_gather(const Tensor& all, std::span<const int64_t> counts) override {
    std::vector<std::byte> bytes(static_cast<size_t>(all.bytes()));
    backend_.copy_to_host(bytes.data(), all);
    const auto part_of_rank = [&](size_t r) {
      return std::span(bytes).subspan(r * size_t(counts[0]), size_t(counts[0]));
    };
    if (!hears_) {
      const auto own = part_of_rank(size_t(rank_));
      told_[size_t(rank_)].emplace_back(own.begin(), own.end());
      return 0;
    }
    for (size_t r = 0; r < told_.size(); ++r)
      if (int(r) != rank_) std::copy_n(told_[r].at(calls_).begin(), counts[0], part_of_rank(r).begin());
    ++calls_;
    backend_.copy_from_host(all, bytes.data());
    return 0;
  }
  Ticket all_reduce(const Tensor&) override { throw Error("played ranks do not add"); }
  Ticket largest(const Tensor&) override { throw Error("played ranks do not compare"); }
  Ticket all_to_all(const Tensor&, std::span<const int64_t>, const Tensor&) override {
    throw Error("played ranks do not swap");
  }
  Ticket reduce_scatter(const Tensor&, std::span<const int64_t>, const Tensor&) override {
    throw Error("played ranks do not add");
  }
  Ticket copy(const Tensor&, const Tensor&) override { throw Error("played ranks do not copy"); }
  void wait(Ticket) override {}
  std::string fault() override { return {}; }

 private:
  Backend& backend_;
  int rank_;
  Told& told_;
  bool hears_;
  size_t calls_ = 0;
};

constexpr int64_t n_rows = 11, d = 8, vocabulary = 1300;

struct Numbers {
  std::vector<float> hidden, weight, bias;
  std::vector<int32_t> targets;

  Numbers() : hidden(n_rows * d), weight(vocabulary * d), bias(vocabulary) {
    uint32_t bits = 1;
    for (auto* values : {&hidden, &weight, &bias})
      for (float& v : *values) v = float(int((bits = bits * 1664525 + 1013904223) >> 25)) / 64 - 1;  // exact in bf16
    // The best of row 5 twice, on two ranks.
    for (int64_t i = 0; i < d; ++i) hidden[5 * d + i] = weight[100 * d + i] = weight[1200 * d + i] = 3;
    bias[100] = bias[1200] = 1;
    for (int64_t r = 0; r < n_rows; ++r) targets.push_back(r == 2 ? -1 : int32_t(r * 127));  // of all ranks
  }
};

struct Found {
  std::vector<float> losses, nll, dhidden, dweight, dbias;
  std::vector<int32_t> predictions;
};

// `told`: null for one rank that has all.
Found of_rank(const TestDevice& device, DType type, Sharding sharding, Told* told, bool hears) {
  static const Numbers numbers;
  const std::unique_ptr<Backend> backend = device.make({.threads = 1});
  const int64_t bytes = int64_t(8) << 20;
  Arena arena(backend->reserve(bytes), bytes);
  backend->bind(arena);
  const Run here = part_of(vocabulary, sharding);
  const auto make = [&](Shape shape) { return backend->make(shape, DType::f32); };
  const auto filled = [&](Shape shape, const float* from) {
    const Tensor t = make(shape), typed = backend->make(shape, type);
    backend->copy_from_host(t, from);
    backend->cast().convert({.y = {typed, Write::overwrite}, .x = t});
    return typed;
  };
  const Tensor ids = backend->make({n_rows}, DType::i32), best = backend->make({n_rows}, DType::i32);
  backend->copy_from_host(ids, numbers.targets.data());
  const Tensor losses = make({n_rows}), nll = make({1}), dhidden = make({n_rows, d}), dweight = make({here.count, d}),
               dbias = make({here.count});
  std::optional<PlayedRanks> ranks;
  if (told) ranks.emplace(*backend, sharding.rank, *told, hears);
  const Tensor state = backend->make({int64_t(sizeof(StepState))}, DType::u8);
  backend->copy_from_host(state, &test_state());
  const Tensor hidden_gradient = backend->make({n_rows, d}, type);
  backend->loss().cross_entropy({.mean = make({1}),
                                 .row_loss = losses,
                                 .nll = nll,
                                 .predictions = best,
                                 .dhidden = {hidden_gradient, Write::overwrite},
                                 .dweight = {dweight, Write::overwrite},
                                 .dbias = {dbias, Write::overwrite},
                                 .hidden = filled({n_rows, d}, numbers.hidden.data()),
                                 .weight = filled({here.count, d}, numbers.weight.data() + here.begin * d),
                                 .bias = filled({here.count}, numbers.bias.data() + here.begin),
                                 .targets = ids,
                                 .spec = {.label_smoothing = 0.1f,
                                          .chunk_rows = 4,
                                          .predict = true,
                                          .first_token = here.begin,
                                          .vocabulary = vocabulary,
                                          .ranks = ranks ? &*ranks : nullptr},
                                 .state = reinterpret_cast<const StepState*>(state.raw())});
  backend->cast().convert({.y = {dhidden, Write::overwrite}, .x = hidden_gradient});
  const auto floats = [&](const Tensor& t) {
    std::vector<float> values(static_cast<size_t>(t.count()));
    backend->copy_to_host(values.data(), t);
    return values;
  };
  std::vector<int32_t> predictions(static_cast<size_t>(n_rows));
  backend->copy_to_host(predictions.data(), best);
  return {floats(losses), floats(nll), floats(dhidden), floats(dweight), floats(dbias), predictions};
}

// All ranks' parts together: what each knows of all rows is the same.
Found of_ranks(const TestDevice& device, DType type, int n) {
  Told told(static_cast<size_t>(n));
  for (int r = 0; r < n; ++r) of_rank(device, type, {r, n}, &told, false);
  Found all;
  for (int r = 0; r < n; ++r) {
    const Found here = of_rank(device, type, {r, n}, &told, true);
    all.dhidden.resize(here.dhidden.size());
    for (size_t i = 0; i < here.dhidden.size(); ++i) all.dhidden[i] += here.dhidden[i];
    for (const auto& [to, from] : {std::pair{&all.dweight, &here.dweight}, {&all.dbias, &here.dbias}})
      to->insert(to->end(), from->begin(), from->end());
    if (r > 0) {
      EXPECT_EQ(here.losses, all.losses);
      EXPECT_EQ(here.predictions, all.predictions);
    }
    all.losses = here.losses, all.nll = here.nll, all.predictions = here.predictions;
  }
  return all;
}

TEST(SharedVocabulary, GivesTheSameAsOneRank) {
  for (const TestDevice& device : test_devices())
    for (const DType type : {DType::f32, DType::bf16}) {
      SCOPED_TRACE(device.name + " " + std::string(name_of(type)));
      const Found one = of_rank(device, type, {}, nullptr, false);
      EXPECT_EQ(one.predictions[5], 100);
      EXPECT_EQ(one.predictions[2], -1);
      for (const int n : {2, 3, 4}) {
        const Found several = of_ranks(device, type, n);
        const auto near = [&](const char* what, const std::vector<float>& a, const std::vector<float>& b, float part) {
          ASSERT_EQ(a.size(), b.size());
          for (size_t i = 0; i < a.size(); ++i)
            ASSERT_NEAR(a[i], b[i], part * (1 + std::abs(b[i]))) << what << " of " << n << " ranks, " << i;
        };
        const float rounding = type == DType::f32 ? 3e-6f : 8e-3f;  // of gradients of logits
        near("losses", several.losses, one.losses, 3e-6f), near("nll", several.nll, one.nll, 3e-6f);
        near("dhidden", several.dhidden, one.dhidden, rounding),
            near("dweight", several.dweight, one.dweight, rounding);
        near("dbias", several.dbias, one.dbias, rounding);
        EXPECT_EQ(several.predictions, one.predictions) << n;
      }
    }
}

}  // namespace
}  // namespace mixtape
