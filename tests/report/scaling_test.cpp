#include "train/report/scaling.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>

namespace mixtape {
namespace {

// The figures of three significant digits stand for anything that rounds to them.
void expect_about(double value, double published) { EXPECT_NEAR(value, published, 0.006 * published); }

TEST(Scaling, OptimaOfTheThreeFits) {
  struct Row {
    double flops;
    struct {
      double parameters, tokens, ratio;
    } fits[3];
  };
  const Row rows[] = {{1e20, {{645e6, 25.9e9, 40}, {774e6, 21.5e9, 28}, {854e6, 19.5e9, 22.9}}},
                      {1e22, {{5.16e9, 323e9, 63}, {6.34e9, 263e9, 42}, {9.05e9, 184e9, 20.4}}},
                      {5.76e23, {{32.2e9, 2.98e12, 93}, {40.3e9, 2.38e12, 59}, {72.3e9, 1.33e12, 18.4}}}};
  for (const Row& row : rows)
    for (int i = 0; i < 3; ++i) {
      const Allocation best = optimal_for_flops(scaling_fits[i], row.flops);
      expect_about(best.parameters, row.fits[i].parameters);
      expect_about(best.tokens, row.fits[i].tokens);
      EXPECT_NEAR(best.ratio(), row.fits[i].ratio, row.fits[i].ratio < 25 ? 0.06 : 0.6);
      EXPECT_NEAR(model_flops(best.parameters, best.tokens), row.flops, 1e-9 * row.flops);
    }
}

TEST(Scaling, TheOptimumIsOne) {
  for (const ScalingFit& fit : scaling_fits) {
    const Allocation best = optimal_for_flops(fit, 1e21);
    const auto loss = [&](double parameters) { return predicted_loss(fit, parameters, 1e21 / 6 / parameters); };
    EXPECT_LT(loss(best.parameters), loss(best.parameters * 1.01));
    EXPECT_LT(loss(best.parameters), loss(best.parameters / 1.01));
  }
}

TEST(Scaling, SizeTokensAndBudgetAreInversesOfEachOther) {
  for (const ScalingFit& fit : scaling_fits) {
    const Allocation best = optimal_for_flops(fit, 3e21);
    const Allocation by_size = optimal_for_parameters(fit, best.parameters),
                     by_tokens = optimal_for_tokens(fit, best.tokens);
    EXPECT_NEAR(by_size.tokens, best.tokens, 1e-9 * best.tokens);
    EXPECT_NEAR(by_size.flops, 3e21, 1e-9 * 3e21);
    EXPECT_NEAR(by_tokens.parameters, best.parameters, 1e-9 * best.parameters);
  }
}

// Tables 3 and A3, and the sizes that the paper gives for the budget of Gopher.
TEST(Scaling, ApproachesOneAndTwo) {
  const struct {
    double parameters, flops[2], tokens[2];
  } rows[] = {{400e6, {1.92e19, 1.84e19}, {8.0e9, 7.7e9}},      {1e9, {1.21e20, 1.20e20}, {20.2e9, 20.0e9}},
              {10e9, {1.23e22, 1.32e22}, {205.1e9, 219.5e9}},   {67e9, {5.76e23, 6.88e23}, {1.5e12, 1.7e12}},
              {175e9, {3.85e24, 4.54e24}, {3.7e12, 4.3e12}},    {280e9, {9.90e24, 1.18e25}, {5.9e12, 7.1e12}},
              {520e9, {3.43e25, 4.19e25}, {11.0e12, 13.4e12}},  {1e12, {1.27e26, 1.59e26}, {21.2e12, 26.5e12}},
              {10e12, {1.30e28, 1.75e28}, {216.2e12, 292.0e12}}};
  for (const auto& row : rows)
    for (const int approach : {1, 2}) {
      const Allocation a = approach_for_parameters(approach, row.parameters);
      EXPECT_NEAR(a.tokens, row.tokens[approach - 1], 1e-9 * a.tokens);
      EXPECT_NEAR(a.flops, row.flops[approach - 1], 0.05 * a.flops);
      EXPECT_NEAR(approach_for_flops(approach, a.flops).parameters, row.parameters, 1e-9 * row.parameters);
    }
  EXPECT_NEAR(approach_for_flops(1, 5.76e23).parameters, 67e9, 0.03 * 67e9);
  EXPECT_NEAR(approach_for_flops(2, 5.76e23).parameters, 63e9, 0.03 * 63e9);
  EXPECT_NEAR(optimal_for_flops(scaling_fits[0], 5.76e23).parameters, 32e9, 0.03 * 32e9);
  // Sizes beside the table go on as its last rows do.
  EXPECT_NEAR(approach_for_parameters(1, 10e6).ratio(), 20, 1);
}

TEST(Scaling, LossOfChinchilla) {
  EXPECT_NEAR(predicted_loss(scaling_fits[0], 70e9, 1.4e12), 1.937, 0.0005);
  EXPECT_NEAR(predicted_loss(default_fit, 70e9, 1.4e12), 1.974, 0.0005);
}

TEST(Scaling, TwentyTokensAParameter) {
  EXPECT_DOUBLE_EQ(rule_of_20_for_parameters(70e9).tokens, 1.4e12);
  const Allocation budget = rule_of_20_for_flops(5.88e23);
  EXPECT_NEAR(budget.parameters, 70e9, 1);
  EXPECT_NEAR(budget.ratio(), 20, 1e-9);
}

TEST(Scaling, KnownModels) {
  struct {
    const char* name;
    double flops, days, ratio;
  } rows[] = {{"GPT-3 175B", 3.15e23, 3646, 1.7},       {"Jurassic-1 Jumbo", 3.20e23, 3708, 1.7},
              {"OPT-175B", 1.89e23, 2188, 1.0},         {"BLOOM-176B", 3.86e23, 4473, 2.1},
              {"Gopher 280B", 5.04e23, 5833, 1.1},      {"Chinchilla 70B", 5.88e23, 6806, 20},
              {"LLaMA-65B", 5.48e23, 6339, 21.5},       {"LLaMA-7B", 4.02e22, 465, 149},
              {"BloombergGPT 50B", 1.73e23, 1999, 11.2}};
  ASSERT_EQ(known_models().size(), std::size(rows));
  for (size_t i = 0; i < std::size(rows); ++i) {
    const KnownModel& m = known_models()[i];
    EXPECT_EQ(m.name, rows[i].name);
    const double flops = model_flops(m.parameters, m.tokens);
    EXPECT_NEAR(flops, rows[i].flops, 0.005 * rows[i].flops) << m.name;
    EXPECT_NEAR(flops / flops_per_petaflop_day, rows[i].days, 0.51) << m.name;
    EXPECT_NEAR(m.tokens / m.parameters, rows[i].ratio, rows[i].ratio > 100 ? 0.5 : 0.051) << m.name;
  }
}

// BloombergGPT reports 2.36e23: its layers were recomputed, so hardware and model FLOPs differ.
TEST(Scaling, RecomputationCountsForTheHardwareOnly) {
  const KnownModel& bloomberg = known_models().back();
  EXPECT_NEAR(hardware_flops(bloomberg.parameters, bloomberg.tokens, true), 2.36e23, 0.03 * 2.36e23);
  EXPECT_EQ(hardware_flops(1e9, 2e10, false), model_flops(1e9, 2e10));
}

TEST(Scaling, TablesShowTheirFigures) {
  EXPECT_NE(known_models_table().find("GPT-3 175B            175B    300B    3.15e+23     3,646        1.7\n"),
            std::string::npos)
      << known_models_table();
  const std::string best = allocations_table(1e22);
  for (const char* text : {"5.16B", "6.34B", "9.05B", "323B", "263B", "184B", "62.6", "41.5", "20.4"})
    EXPECT_NE(best.find(text), std::string::npos) << text << "\n" << best;
  EXPECT_NE(tokens_for_parameters_table(70e9).find("1.40T"), std::string::npos);
  EXPECT_NE(plan_table(70e9, 1.4e12).find("1.937"), std::string::npos);
}

}  // namespace
}  // namespace mixtape
