#include "train/data/mixture.h"

#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/data/support.h"

namespace mixtape::test {
namespace {

std::vector<MixtureSource> sources(const std::vector<double>& weights) {
  std::vector<MixtureSource> out;
  for (const double weight : weights) out.push_back({"source " + std::to_string(out.size()), weight});
  return out;
}

TEST(Mixture, GoldenBlends) {
  std::ifstream in(std::string(MIXTAPE_GOLDEN) + "/objectives/causal.json");
  const auto golden = nlohmann::json::parse(in);
  for (const auto& blend : golden.at("blend")) {
    const Mixture mixture(sources(blend.at("weights").get<std::vector<double>>()));
    std::vector<int> found;
    for (size_t i = 0; i < blend.at("samples").size(); ++i) found.push_back(mixture.position(i).source);
    EXPECT_EQ(found, blend.at("samples").get<std::vector<int>>());
  }
}

TEST(Mixture, PositionDoesNotDependOnTheOrderOfQuestions) {
  const Mixture forward(sources({3, 1, 2.5})), backward(sources({3, 1, 2.5}));
  std::vector<uint64_t> counts(3, 0);
  std::vector<std::pair<int, uint64_t>> seen;
  for (uint64_t i = 0; i < 20000; ++i) {
    const auto position = forward.position(i);
    ASSERT_EQ(position.ordinal, counts[size_t(position.source)]++);
    seen.emplace_back(position.source, position.ordinal);
  }
  EXPECT_EQ(forward.counts(20000), counts);
  for (uint64_t i = 20000; i-- > 0;) {
    const auto position = backward.position(i);
    ASSERT_EQ(seen[i], std::make_pair(position.source, position.ordinal)) << i;
  }
}

TEST(Mixture, SharesStayWithinASampleOrTwoOfTheWeights) {
  const Mixture mixture(sources({0.7, 0.25, 0.05}));
  for (const uint64_t n : {10u, 1000u, 12345u, 300000u}) {
    const auto counts = mixture.counts(n);
    EXPECT_NEAR(double(counts[0]), 0.7 * double(n), 2);
    EXPECT_NEAR(double(counts[1]), 0.25 * double(n), 2);
    EXPECT_NEAR(double(counts[2]), 0.05 * double(n), 2);
  }
}

TEST(Mixture, ExhaustedSourcesDropOutAndTheOthersShareTheRest) {
  auto list = sources({0.5, 0.25, 0.25});
  list[0].limit = 5000;
  const Mixture mixture(list);
  EXPECT_FALSE(mixture.size());
  const auto counts = mixture.counts(30000);
  EXPECT_EQ(counts[0], 5000u);
  EXPECT_NEAR(double(counts[1]), 12500, 2);
  EXPECT_NEAR(double(counts[2]), 12500, 2);
}

TEST(Mixture, EndsWhenAllAreExhausted) {
  auto list = sources({2, 1});
  list[0].limit = 5000, list[1].limit = 4000;
  const Mixture mixture(list);
  ASSERT_EQ(mixture.size(), 9000u);
  EXPECT_EQ(mixture.counts(9000), (std::vector<uint64_t>{5000, 4000}));
  EXPECT_EQ(mixture.position(8999).source, 1);
  const std::string message = error_of([&] { mixture.position(9000); });
  EXPECT_NE(message.find("9000"), std::string::npos);
  EXPECT_NE(message.find("max_epochs"), std::string::npos);
}

TEST(Mixture, StagesHaveTheirOwnShares) {
  const Mixture mixture(sources({1, 0}), {{1000, {1, 1}}, {10000, {0, 1}}});
  EXPECT_EQ(mixture.counts(1000), (std::vector<uint64_t>{1000, 0}));
  const auto both = mixture.counts(10000);
  EXPECT_NEAR(double(both[0]), 1000 + 4500, 1);
  EXPECT_EQ(both[0] + both[1], 10000u);
  EXPECT_EQ(mixture.counts(30000)[0], both[0]);
  // In whatever order one asks, and however the stages lie to the blocks.
  const Mixture again(sources({1, 0}), {{1000, {1, 1}}, {10000, {0, 1}}});
  std::vector<uint64_t> counts(2, 0);
  for (uint64_t i = 0; i < 12000; ++i) {
    const auto position = mixture.position(i), other = again.position(11999 - i);
    ASSERT_EQ(position.ordinal, counts[size_t(position.source)]++) << i;
    ASSERT_EQ(other.source, mixture.position(11999 - i).source);
  }
}

TEST(Mixture, EndsWithTheSourcesOfTheStage) {
  auto list = sources({1, 1});
  list[0].limit = 100, list[1].limit = 1000;
  // The second has given 100 when the first is over, and 300 when the stage begins in which it has no weight.
  EXPECT_EQ(Mixture(list, {{400, {1, 0}}}).size(), 400u);
  EXPECT_EQ(Mixture(list, {{400, {0, 1}}}).size(), 1100u);
  EXPECT_EQ(Mixture(list, {{50, {1, 0}}}).size(), 125u);
  EXPECT_FALSE(Mixture(sources({1, 1}), {{50, {1, 0}}}).size());
  EXPECT_NE(error_of([&] { Mixture(list, {{50, {1, 0}}}).position(125); }).find("125"), std::string::npos);
}

TEST(Mixture, StagesThatMakeNoSense) {
  EXPECT_THROW(Mixture(sources({1, 1}), {{10, {1}}}), ConfigError);
  EXPECT_THROW(Mixture(sources({1, 1}), {{10, {0, 0}}}), ConfigError);
  EXPECT_THROW(Mixture(sources({1, 1}), {{10, {1, 0}}, {10, {0, 1}}}), ConfigError);
  EXPECT_THROW(Mixture(sources({1, 1}), {{0, {1, 0}}}), ConfigError);
}

TEST(Mixture, WeightsThatMakeNoSense) {
  EXPECT_THROW(Mixture(sources({0, 0})), ConfigError);
  EXPECT_THROW(Mixture(sources({1, -1})), ConfigError);
  EXPECT_THROW(Mixture(sources({1, std::numeric_limits<double>::quiet_NaN()})), ConfigError);
  const Mixture mixture(sources({0, 1}));
  for (uint64_t i = 0; i < 100; ++i) EXPECT_EQ(mixture.position(i).source, 1);
}

}  // namespace
}  // namespace mixtape::test
