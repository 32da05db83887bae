// Encoders and encoder-decoders as a user trains them: they learn, a resumed run has the same bits, the export is what
// transformers calls it, and the finished model is evaluated and generates.
#include <gtest/gtest.h>

#include "tests/end_to_end/process.h"

namespace mixtape {
namespace {

struct FamilyCase {
  const char* model_type;
  const char* objective;
  const char* axes;
  bool generates;
};

class Families : public testing::TestWithParam<FamilyCase> {
 protected:
  void SetUp() override {
    space.write("text.txt", sample_text(160));
    std::vector<std::string> tokenizer{"tokenizer", "train", "text.txt", "-o",   "tokenizer", "--vocab-size", "320",
                                       "--special", "<s>",   "<pad>",    "</s>", "<unk>",     "<mask>"};
    for (int i = 0; i < 20; ++i) tokenizer.push_back("<extra_id_" + std::to_string(i) + ">");
    run(tokenizer);
    run({"data", "prepare", "--tokenizer", "tokenizer", "--separator", "%", "--output", "shards", "text.txt"});
    space.write("tiny.yaml", std::string(R"(
run: {name: tiny}
data: {tokenizer: tokenizer, sources: [{name: text, path: shards}], validation_split: 0.1, seq_length: 32}
train: {micro_batch_size: 4, global_batch_size: 8, max_steps: 40}
optimizer: {lr: 5.0e-3}
schedule: {warmup_steps: 5}
eval: {interval: 20, tokens: 200}
checkpoint: {interval: 10, keep_last: 2}
logging: {interval: 1, sample_interval: 40, sample_tokens: 4, sample_prompts: ["The river"]}
determinism: strict
objective: {name: )") + GetParam().objective +
                                 "}\nmodel: {n_layers: 2, d_model: 32, n_heads: 2, vocab_size: 320, " +
                                 "max_positions: 40, dropout: 0.1, attention_dropout: 0.1, pad_id: 1, " +
                                 GetParam().axes + "}\n");
  }
  void run(const std::vector<std::string>& arguments) const {
    const ProcessResult r = space.mixtape(arguments);
    ASSERT_EQ(r.exit_code, 0) << r.err;
  }
  std::string final_state(const std::string& name) const {
    const std::string at = "runs/" + name + "/checkpoints/step-00000040/";
    return space.read(at + "model.safetensors") + space.read(at + "optimizer.safetensors");
  }
  // The mean of ten steps: a step masks few tokens.
  double loss(const std::string& name, int first) const {
    const std::string metrics = space.read("runs/" + name + "/metrics.jsonl");
    double sum = 0;
    for (int step = first; step < first + 10; ++step) {
      const size_t at = metrics.find("\"event\":\"step\",\"step\":" + std::to_string(step) + ",");
      sum += std::stod(metrics.substr(metrics.find("\"loss\":", at) + 7, 12));
    }
    return sum / 10;
  }
  Workspace space;
};

TEST_P(Families, LearnResumeAndExport) {
  run({"train", "tiny.yaml", "run.name=straight"});
  EXPECT_LT(loss("straight", 31), loss("straight", 1) - 0.3);
  run({"train", "tiny.yaml", "run.name=pieces", "train.stop_at_step=13"});
  run({"train", "tiny.yaml", "run.name=pieces"});
  EXPECT_TRUE(final_state("pieces") == final_state("straight")) << "a resumed run has other bits";
  run({"train", "tiny.yaml", "run.name=recomputed", "memory.recompute=full"});
  EXPECT_TRUE(final_state("recomputed") == final_state("straight")) << "recomputation changes bits";

  const std::string config = space.read("runs/straight/model/config.json");
  EXPECT_NE(config.find("\"model_type\": \"" + std::string(GetParam().model_type) + "\""), std::string::npos) << config;
  run({"eval", "runs/straight", "shards", "--seq-length", "32", "--json"});
  run({"train", "tiny.yaml", "run.name=continued", "run.init_from=runs/straight"});
  EXPECT_LT(loss("continued", 1), loss("straight", 1) - 0.3);

  const ProcessResult text = space.mixtape({"generate", "runs/straight", "--prompt", "The river", "-n", "5"});
  if (GetParam().generates) {
    EXPECT_EQ(text.exit_code, 0) << text.err;
  } else {
    EXPECT_EQ(text.exit_code, 2);
    EXPECT_NE(text.err.find("is an encoder"), std::string::npos) << text.err;
  }
}

const char* const post =
    "norm_placement: post, final_norm: false, embedding_norm: true, activation: gelu, "
    "init_residual_scaled: false, ";
const std::string masked = std::string(post) + "family: encoder, mlm_head: true, lm_head_bias: true, ";
const std::string bert = masked + "token_types: 2", roberta = masked + "token_types: 1, position_offset: 2";
const std::string bart = std::string(post) + "family: encoder_decoder, position_offset: 2";
const char* const t5 =
    "family: encoder_decoder, position: relative_bias, norm: rmsnorm, bias: false, attention_scale: 1, "
    "activation: relu, logit_scale: 0, init: fan_in, init_std: 1, init_residual_scaled: false";
// "Attention is all you need": no architecture of transformers.
const char* const original =
    "family: encoder_decoder, position: sinusoidal, norm_placement: post, final_norm: false, "
    "activation: relu, embedding_scale: 0, init: fan_in, init_std: 1, n_decoder_layers: 1";

INSTANTIATE_TEST_SUITE_P(All, Families,
                         testing::Values(FamilyCase{"bert", "masked_lm", bert.c_str(), false},
                                         FamilyCase{"roberta", "masked_lm", roberta.c_str(), false},
                                         FamilyCase{"bart", "denoising", bart.c_str(), true},
                                         FamilyCase{"t5", "span_corruption", t5, true},
                                         FamilyCase{"mixtape", "denoising, label_smoothing: 0.1", original, true}),
                         [](const auto& info) { return std::string(info.param.model_type); });

}  // namespace
}  // namespace mixtape
