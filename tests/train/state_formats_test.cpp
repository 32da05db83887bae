// Every combination of weights, masters, gradients, moments and update rule: it trains, in the memory that was planned,
// or it is refused with a reason; and so it does with its state outside of memory, with the same bits.
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "tests/checkpoint/temporary_directory.h"
#include "tests/train/tiny_run.h"
#include "train/step.h"

namespace mixtape {
namespace {

template <class E>
std::vector<std::string> all_of() {
  std::vector<std::string> list;
  for (const auto& named : names(std::type_identity<E>())) list.emplace_back(named.name);
  return list;
}

// One step, and a validation. Returns weights, masters and moments.
std::vector<std::vector<std::byte>> expect_step(const Config& config) {
  const EngineOptions options = training_options(config);
  const MemoryPlan plan = plan_training(options, config);
  Engine engine(options, plan.memory());
  engine.parameters().initialise(1);
  TrainingStep step(engine, config);
  const StepResult result = step.run(tiny_batch(), 1e-3);
  EXPECT_TRUE(result.finite);
  EXPECT_TRUE(result.loss > 3 && result.loss < 5) << result.loss;  // log 50 is 3.9
  engine.run_micro_batch(false);
  EXPECT_EQ(engine.arena().peak(), plan.peak);
  EXPECT_EQ(engine.arena().at_peak(), plan.at_peak);
  return all_bytes(engine);
}

// False: refused, since there is nothing to move.
bool expect_offloaded_step(ResolvedConfig r, const std::filesystem::path& directory,
                           const std::vector<std::vector<std::byte>>& held) {
  r.config.memory.offload = OffloadMode::optimizer;
  r.config.memory.offload_directory = directory.string();
  try {
    check(r.config, r.origins, build_features());
  } catch (const ConfigError& error) {
    const std::string reason = error.what();
    EXPECT_TRUE(reason.find("memory.offload") != reason.npos && reason.find("which has no effect") != reason.npos)
        << reason;
    return false;
  }
  EXPECT_EQ(expect_step(r.config), held) << "offloaded";
  return true;
}

TEST(StateFormats, EveryCombinationTrainsOrIsRefusedWithAReason) {
  std::map<std::string, int> trained;  // by gradients
  int refused = 0, offloaded = 0, held_only = 0;
  const TemporaryDirectory directory;
  for (const std::string& mode : all_of<PrecisionMode>())
    for (const std::string& master : all_of<MasterWeights>())
      for (const std::string& gradients : all_of<GradientStorage>())
        for (const std::string& moments : all_of<MomentFormat>())
          for (const std::string& optimizer : all_of<OptimizerKind>()) {
            std::vector<std::string> settings = {"precision.mode=" + mode,
                                                 "precision.master=" + master,
                                                 "precision.gradients=" + gradients,
                                                 "precision.moments=" + moments,
                                                 "optimizer.name=" + optimizer,
                                                 "model.n_layers=1",
                                                 "model.n_heads=2",
                                                 "precision.loss_scale.initial=1",
                                                 "data.sources=[{path: none}]",
                                                 "schedule.warmup_steps=1"};
            if (gradients == "fused") settings.push_back("train.on_nonfinite.policy=stop");
            SCOPED_TRACE(fmt::format("{}", fmt::join(settings, " ")));
            ResolvedConfig r;
            std::string reason;
            try {
              r.config = tiny_config(settings);
              check(r.config, r.origins, build_features());
            } catch (const ConfigError& error) {
              reason = error.what();
            }
            if (reason.empty()) {
              ++(expect_offloaded_step(r, directory.path, expect_step(r.config)) ? offloaded : held_only);
              ++trained[gradients];
              continue;
            }
            ++refused;
            const bool names_a_key =
                reason.find("precision.") != reason.npos || reason.find("optimizer.") != reason.npos;
            const bool says_why = reason.find("expected") != reason.npos || reason.find("which") != reason.npos ||
                                  reason.find("but") != reason.npos;
            EXPECT_TRUE(names_a_key && says_why) << reason;
          }
  for (const std::string& gradients : all_of<GradientStorage>()) EXPECT_GT(trained[gradients], 3) << gradients;
  EXPECT_GT(refused, 10);
  EXPECT_GT(offloaded, 50);
  EXPECT_GT(held_only, 0);
}

}  // namespace
}  // namespace mixtape
