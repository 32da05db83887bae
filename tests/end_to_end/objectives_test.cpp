// Every objective on the family that it is for: it learns, and a stopped and resumed run is the same run.
#include <gtest/gtest.h>

#include <cmath>

#include "tests/end_to_end/process.h"

namespace mixtape {
namespace {

struct ObjectiveRecipe {
  const char* name;
  std::vector<std::string> overrides;
};

const ObjectiveRecipe recipes[] = {
    {"bert",
     {"objective.name=masked_lm", "objective.masking=bert", "objective.masking_unit=whole_word", "model.family=encoder",
      "model.norm_placement=post", "model.final_norm=false", "model.token_types=2", "model.mlm_head=true"}},
    {"roberta", {"objective.name=masked_lm", "model.family=encoder"}},
    {"t5",
     {"objective.name=span_corruption", "model.family=encoder_decoder", "model.position=relative_bias",
      "model.norm=rmsnorm"}},
    {"bart",
     {"objective.name=denoising", "model.family=encoder_decoder", "model.norm_placement=post",
      "model.final_norm=false"}},
};

class TrainsWith : public testing::TestWithParam<ObjectiveRecipe> {
 protected:
  void SetUp() override {
    space.write("text.txt", sample_text(120));
    ASSERT_EQ(space
                  .mixtape({"tokenizer", "train", "text.txt", "-o", "t.json", "--vocab-size", "320", "--special", "<s>",
                            "<pad>", "</s>", "<mask>", "<extra_id_0>", "<extra_id_1>", "<extra_id_2>", "<extra_id_3>"})
                  .exit_code,
              0);
    ASSERT_EQ(
        space.mixtape({"data", "prepare", "text.txt", "-t", "t.json", "--separator", "%", "-o", "shards"}).exit_code,
        0);
    space.write("tiny.yaml", R"(
model: {n_layers: 2, d_model: 32, n_heads: 2, vocab_size: 320, max_positions: 64, dropout: 0.1, init_residual_scaled: false}
data: {tokenizer: t.json, sources: [{name: text, path: shards}], validation_split: 0.1, seq_length: 48}
train: {micro_batch_size: 4, global_batch_size: 8, max_steps: 60}
optimizer: {lr: 1.0e-2}
schedule: {warmup_steps: 5}
eval: {interval: 20, tokens: 400}
checkpoint: {interval: 20}
logging: {interval: 10, sample_interval: 30, sample_tokens: 8, sample_prompts: ["The "]}
determinism: strict
)");
  }

  ProcessResult train(const std::string& run, const std::vector<std::string>& more = {}) const {
    std::vector<std::string> arguments{"train", "tiny.yaml", "run.name=" + run};
    arguments.insert(arguments.end(), GetParam().overrides.begin(), GetParam().overrides.end());
    arguments.insert(arguments.end(), more.begin(), more.end());
    return space.mixtape(arguments);
  }
  // The numbers of a key in the events of a kind, in order.
  std::vector<double> numbers(const std::string& run, const std::string& event, const std::string& key) const {
    const std::string metrics = space.read("runs/" + run + "/metrics.jsonl");
    std::vector<double> found;
    const std::string start = "{\"event\":\"" + event + "\",", name = "\"" + key + "\":";
    for (size_t at = metrics.find(start); at != metrics.npos; at = metrics.find(start, at + 1)) {
      const size_t value = metrics.find(name, at);
      if (value < metrics.find('\n', at)) found.push_back(std::stod(metrics.substr(value + name.size(), 24)));
    }
    return found;
  }
  std::string final_weights(const std::string& run) const {
    return space.read("runs/" + run + "/checkpoints/step-00000060/model.safetensors");
  }
  Workspace space;
};

TEST_P(TrainsWith, LearnsValidatesAndResumesExactly) {
  const ProcessResult r = train("straight");
  ASSERT_EQ(r.exit_code, 0) << r.err;
  const std::vector<double> losses = numbers("straight", "step", "loss");
  ASSERT_GE(losses.size(), 6u) << space.read("runs/straight/metrics.jsonl");
  // Uniform over 320 tokens at first; the letters' frequencies alone are worth two nats.
  EXPECT_NEAR(losses.front(), std::log(320.0), 0.7);
  EXPECT_LT(losses.back(), losses.front() - 1);
  const std::vector<double> validation = numbers("straight", "eval", "loss");
  ASSERT_EQ(validation.size(), 3u);
  EXPECT_LT(validation.back(), validation.front());
  EXPECT_FALSE(space.read("runs/straight/model/model.safetensors").empty());

  ASSERT_EQ(train("pieces", {"train.stop_at_step=23"}).exit_code, 0);
  ASSERT_EQ(train("pieces").exit_code, 0);
  EXPECT_FALSE(final_weights("pieces").empty());
  EXPECT_EQ(final_weights("pieces"), final_weights("straight"));
}

INSTANTIATE_TEST_SUITE_P(Recipes, TrainsWith, testing::ValuesIn(recipes),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace mixtape
