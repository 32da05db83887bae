// Fine-tuning as a user does it: a pre-trained model, a file of examples, scores.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/end_to_end/process.h"

namespace mixtape {
namespace {

struct TaskCase {
  const char* name;
  const char* pretraining;  // its objective
  const char* axes;
  const char* settings;  // of the task
  const char* score;     // that says that it was learnt
  std::string (*example)(int number);
  const char* architecture;
};

const char* const animals[] = {"cat", "dog", "bird", "fish"};
const char* const verbs[] = {"sees", "finds", "likes"};

std::string phrase(int i) {
  return std::string("the ") + animals[i % 4] + " " + verbs[i / 4 % 3] + " the " + animals[i / 12 % 4];
}

class FineTuning : public testing::TestWithParam<TaskCase> {
 protected:
  void SetUp() override {
    std::string text, examples;
    for (int i = 0; i < 96; ++i) text += phrase(i) + ".\n%\n";
    for (int i = 0; i < 96; ++i) examples += GetParam().example(i) + "\n";
    space.write("text.txt", text);
    space.write("examples.jsonl", examples);
    run({"tokenizer", "train", "text.txt", "-o", "tokenizer", "--vocab-size", "300", "--special", "<s>", "<pad>",
         "</s>", "<unk>", "<mask>"});
    run({"data", "prepare", "--tokenizer", "tokenizer", "--separator", "%", "--output", "shards", "text.txt"});
    const std::string model = std::string(
                                  "model: {n_layers: 2, d_model: 48, n_heads: 4, vocab_size: 300, max_positions: 64, "
                                  "pad_id: 1, dropout: 0.1, ") +
                              GetParam().axes + "}\n";
    space.write("base.yaml", model + "run: {name: base}\nobjective: {name: " + GetParam().pretraining + R"(}
data: {tokenizer: tokenizer, sources: [{name: text, path: shards}], seq_length: 32}
train: {micro_batch_size: 4, global_batch_size: 4, max_steps: 10}
schedule: {warmup_steps: 2}
eval: {interval: 0}
logging: {sample_interval: 0}
determinism: strict
)");
    space.write("task.yaml", model + std::string("objective: {name: ") + GetParam().name + GetParam().settings + R"(}
run: {name: task, init_from: runs/base}
data: {tokenizer: tokenizer, sources: [{name: examples, path: examples.jsonl, validation: examples.jsonl}], seq_length: 64}
train: {micro_batch_size: 2, global_batch_size: 4, max_steps: 200}
optimizer: {lr: 3.0e-3}
schedule: {warmup_steps: 10}
eval: {interval: 60}
checkpoint: {interval: 40}
logging: {interval: 20, sample_interval: 0}
determinism: strict
)");
    run({"train", "base.yaml"});
  }
  void run(const std::vector<std::string>& arguments) {
    const ProcessResult r = space.mixtape(arguments);
    ASSERT_EQ(r.exit_code, 0) << r.err;
    output = r.out + r.err;
  }
  double last_score(const std::string& name) const {
    const std::string metrics = space.read("runs/" + name + "/metrics.jsonl");
    const size_t at = metrics.rfind("\"event\":\"eval\""), end = metrics.find('\n', at);
    const size_t begin = metrics.rfind('\n', at) + 1;
    return nlohmann::json::parse(metrics.substr(begin, end - begin)).at(GetParam().score);
  }
  std::string weights(const std::string& name) const {
    return space.read("runs/" + name + "/checkpoints/step-00000200/model.safetensors");
  }
  Workspace space;
  std::string output;
};

TEST_P(FineTuning, LearnsScoresResumesAndExports) {
  run({"data", "inspect", "task.yaml", "-n", "1"});
  EXPECT_NE(output.find("96 examples"), std::string::npos) << output;
  run({"train", "task.yaml"});
  EXPECT_GT(last_score("task"), 0.9);

  run({"train", "task.yaml", "run.name=pieces", "train.stop_at_step=50"});
  run({"train", "task.yaml", "run.name=pieces"});
  EXPECT_TRUE(weights("pieces") == weights("task")) << "a resumed run has other bits";

  const std::string config = space.read("runs/task/model/config.json");
  EXPECT_NE(config.find(GetParam().architecture), std::string::npos) << config;
  for (const char* model : {"runs/task", "runs/task/model"}) {
    run({"eval", model, "examples.jsonl", "--json", "--seq-length", "64"});
    const auto json = nlohmann::json::parse(output.substr(output.find('{')));
    EXPECT_NEAR(json.at(GetParam().score).get<double>(), last_score("task"), 1e-9) << model;
  }
  if (std::string(GetParam().score) != "exact_match") return;
  // Exact match was counted without generating; generation agrees.
  const auto first = nlohmann::json::parse(GetParam().example(5));
  const bool two = first.contains("source");
  const std::string prompt = first.at(two ? "source" : "prompt"), wanted = first.at(two ? "target" : "response");
  run({"generate", "runs/task", "--prompt", prompt, "--greedy", "-q", "-n", "20"});
  EXPECT_NE(output.find(wanted), std::string::npos) << output;
}

TEST_P(FineTuning, WithAdapters) {
  const std::string name = GetParam().name;
  if (name != "classify" && name != "instruct") GTEST_SKIP() << "two tasks suffice";
  const std::vector<std::string> lora{"lora.rank=8", "lora.targets=['*']", "optimizer.lr=1e-2"};
  const auto train = [&](std::vector<std::string> more) {
    more.insert(more.begin(), {"train", "task.yaml"});
    more.insert(more.end(), lora.begin(), lora.end());
    run(more);
  };
  train({"run.name=lora"});
  EXPECT_NE(output.find("of which learn"), std::string::npos) << output;
  EXPECT_GT(last_score("lora"), 0.8);
  train({"run.name=lora-pieces", "train.stop_at_step=50"});
  train({"run.name=lora-pieces"});
  const auto adapter = [&](const std::string& run) {
    return space.read("runs/" + run + "/checkpoints/step-00000200/adapter_model.safetensors");
  };
  EXPECT_FALSE(adapter("lora").empty());
  EXPECT_TRUE(adapter("lora") == adapter("lora-pieces")) << "a resumed run has other bits";
  // A checkpoint, and the merged export, which knows nothing of adapters.
  EXPECT_FALSE(std::filesystem::exists(space.path() / "runs/lora/model/adapter_config.json"));
  for (const char* model : {"runs/lora", "runs/lora/model"}) {
    run({"eval", model, "examples.jsonl", "--json", "--seq-length", "64"});
    const auto json = nlohmann::json::parse(output.substr(output.find('{')));
    EXPECT_NEAR(json.at(GetParam().score).get<double>(), last_score("lora"), 0.02) << model;
  }
  run({"export", "runs/lora", "adapter", "--adapter"});
  EXPECT_TRUE(space.read("adapter/adapter_model.safetensors") == adapter("lora"));
  EXPECT_EQ(space.mixtape({"export", "runs/base", "none", "--adapter"}).exit_code, 2);
  // Other adapters than the checkpoint's.
  const ProcessResult refused = space.mixtape({"train", "task.yaml", "run.name=lora-pieces", "lora.rank=4"});
  EXPECT_EQ(refused.exit_code, 2) << refused.err;
}

TEST_P(FineTuning, WithFrozenLayers) {
  if (GetParam().name != std::string("classify")) GTEST_SKIP() << "one task suffices";
  const std::vector<std::string> freeze{"train",
                                        "task.yaml",
                                        "run.name=frozen",
                                        "train.max_steps=20",
                                        "parameters.freeze=['embedding.*', 'layers.0.*']",
                                        "precision.mode=bf16"};
  std::vector<std::string> part = freeze;
  part.push_back("train.stop_at_step=7");
  run(part);
  run(freeze);
  EXPECT_NE(output.find("of which learn"), std::string::npos) << output;
  const ProcessResult wrong = space.mixtape({"train", "task.yaml", "run.name=wrong", "parameters.freeze=['layer.*']"});
  EXPECT_EQ(wrong.exit_code, 2);
  EXPECT_NE(wrong.err.find("parameters.freeze[0]: 'layer.*' matches nothing"), std::string::npos) << wrong.err;
  run({"plan", "task.yaml", "--parameters"});
  EXPECT_NE(output.find("classifier.weight"), std::string::npos) << output;
}

std::string quoted(const std::string& text) { return "\"" + text + "\""; }

const char* const tiny_bert =
    "family: encoder, norm_placement: post, final_norm: false, embedding_norm: true, activation: gelu, "
    "init_residual_scaled: false, mlm_head: true, lm_head_bias: true, token_types: 2";
const char* const tiny_bart =
    "family: encoder_decoder, norm_placement: post, final_norm: false, embedding_norm: true, activation: gelu, "
    "init_residual_scaled: false, position_offset: 2";

const TaskCase cases[] = {
    {"classify", "masked_lm", tiny_bert, ", labels: [cat, dog, bird, fish]", "macro_f1",
     [](int i) { return "{\"text\": " + quoted(phrase(i)) + ", \"label\": " + quoted(animals[i % 4]) + "}"; },
     "BertForSequenceClassification"},
    {"tag", "masked_lm", tiny_bert, ", labels: [O, B-ANIMAL, VERB]", "micro_f1",
     [](int i) {
       return std::string("{\"tokens\": [\"the\", ") + quoted(animals[i % 4]) + ", " + quoted(verbs[i / 4 % 3]) +
              ", \"the\", " + quoted(animals[i / 12 % 4]) +
              "], \"tags\": [\"O\", \"B-ANIMAL\", \"VERB\", \"O\", \"B-ANIMAL\"]}";
     },
     "BertForTokenClassification"},
    // Which animal is seen by which: what a tiny model learns in seconds.
    {"seq2seq", "denoising", tiny_bart, "", "exact_match",
     [](int i) {
       return "{\"source\": " + quoted(animals[i % 4]) + ", \"target\": " + quoted(animals[(i + 1) % 4]) + "}";
     },
     "BartForConditionalGeneration"},
    {"instruct", "causal_lm", "family: decoder", "", "exact_match",
     [](int i) {
       return "{\"prompt\": " + quoted(std::string(animals[i % 4]) + ":") +
              ", \"response\": " + quoted(std::string(" ") + animals[(i + 1) % 4]) + "}";
     },
     "GPT2LMHeadModel"},
};

INSTANTIATE_TEST_SUITE_P(Tasks, FineTuning, testing::ValuesIn(cases),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace mixtape
