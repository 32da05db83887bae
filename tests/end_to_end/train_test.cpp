// Training as a user sees it: the same bits whether stopped or not, errors that say what is wrong, nothing lost.
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <map>
#include <thread>

#include "core/base/error.h"
#include "core/base/philox.h"
#include "tests/end_to_end/process.h"

namespace mixtape {
namespace {

using namespace std::chrono_literals;

const char* const tiny = R"(
run: {name: tiny}
model: {n_layers: 2, d_model: 32, n_heads: 2, vocab_size: 257, max_positions: 64, dropout: 0.1, attention_dropout: 0.1}
data:
  tokenizer: bytes
  sources: [{name: text, path: shards}]
  validation_split: 0.1
  seq_length: 48
train: {micro_batch_size: 2, global_batch_size: 4, max_steps: 30}
optimizer: {lr: 3.0e-3}
schedule: {warmup_steps: 5}
eval: {interval: 10, tokens: 500}
checkpoint: {interval: 4, keep_last: 2}
logging: {interval: 5, sample_interval: 15, sample_tokens: 8, sample_prompts: ["The "]}
determinism: strict
)";

class Training : public testing::Test {
 protected:
  void SetUp() override {
    space.write("text.txt", sample_text(120));
    space.write("tiny.yaml", tiny);
    const ProcessResult r = space.mixtape(
        {"data", "prepare", "--tokenizer", "bytes", "--separator", "%", "--output", "shards", "text.txt"});
    ASSERT_EQ(r.exit_code, 0) << r.err;
  }
  ProcessResult train(const std::vector<std::string>& more = {}) const {
    std::vector<std::string> arguments{"train", "tiny.yaml"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return space.mixtape(arguments);
  }
  // A hash of the weights and the whole optimizer state at the end of a run.
  size_t final_state(const std::string& run) const {
    const std::string at = "runs/" + run + "/checkpoints/step-00000030/";
    const std::string weights = space.read(at + "model.safetensors");
    EXPECT_FALSE(weights.empty()) << run << " has no final checkpoint";
    return std::hash<std::string>()(weights + space.read(at + "optimizer.safetensors"));
  }
  Workspace space;
};

TEST_F(Training, LearnsAndLeavesWhatItPromises) {
  const ProcessResult r = train({"run.name=a"});
  ASSERT_EQ(r.exit_code, 0) << r.err;
  for (const char* file : {"config.resolved.yaml", "env.json", "train.log", "metrics.jsonl", "report.html",
                           "model/config.json", "model/model.safetensors"})
    EXPECT_FALSE(space.read(std::string("runs/a/") + file).empty()) << file;
  const std::string metrics = space.read("runs/a/metrics.jsonl");
  const auto loss_at = [&](const std::string& line_start) {
    const size_t at = metrics.find(line_start);
    const size_t loss = metrics.find("\"loss\":", at);
    return std::stod(metrics.substr(loss + 7, 12));
  };
  const double first = loss_at("\"event\":\"step\",\"step\":1,"), last = loss_at("\"event\":\"step\",\"step\":30,");
  EXPECT_NEAR(first, std::log(257.0), 0.3);
  EXPECT_LT(last, 0.75 * first);
  EXPECT_NE(metrics.find("\"event\":\"sample\""), std::string::npos);
  EXPECT_NE(metrics.find("\"event\":\"eval\""), std::string::npos);
  EXPECT_NE(space.read("runs/a/report.html").find("class=\"pill good\">finished"), std::string::npos);
}

TEST_F(Training, KeepsTheBestOfItsCheckpoints) {
  // The rate grows until the loss explodes. Every third validation is at a step that is saved.
  ASSERT_EQ(train({"run.name=a", "optimizer.lr=4", "schedule.warmup_steps=30", "eval.interval=2",
                   "checkpoint.interval=6", "checkpoint.keep_last=1"})
                .exit_code,
            0);
  const std::string metrics = space.read("runs/a/metrics.jsonl");
  std::map<double, int> step_of;  // by validation loss
  std::map<double, int> saved_step_of;
  for (int step = 2; step <= 30; step += 2) {
    const size_t at = metrics.find(fmt::format("\"event\":\"eval\",\"step\":{},", step));
    ASSERT_NE(at, metrics.npos) << step;
    const double loss = std::stod(metrics.substr(metrics.find("\"loss\":", at) + 7, 12));
    step_of[loss] = step;
    if (step % 6 == 0) saved_step_of[loss] = step;
  }
  ASSERT_NE(step_of.begin()->second % 6, 0) << "the least loss of all should not be at a saved step";
  const int best = saved_step_of.begin()->second;
  ASSERT_LT(best, 30) << "it should not be kept for being the newest";
  EXPECT_FALSE(space.read(fmt::format("runs/a/checkpoints/step-{:08}/model.safetensors", best)).empty());
}

TEST_F(Training, ReportsPutRunsBesideEachOther) {
  ASSERT_EQ(train({"run.name=a"}).exit_code, 0);
  ASSERT_EQ(train({"run.name=b", "optimizer.lr=1e-3"}).exit_code, 0);
  ASSERT_EQ(space.mixtape({"report", "runs/a", "runs/b", "-o", "both.html"}).exit_code, 0);
  const std::string page = space.read("both.html");
  for (const char* text : {"2 runs beside each other", "<code>optimizer.lr</code>", ">0.003<", ">0.001<"})
    EXPECT_NE(page.find(text), std::string::npos) << text;
}

TEST_F(Training, SameSeedSameBitsOtherSeedOtherBits) {
  ASSERT_EQ(train({"run.name=a"}).exit_code, 0);
  ASSERT_EQ(train({"run.name=b"}).exit_code, 0);
  ASSERT_EQ(train({"run.name=c", "seed=5"}).exit_code, 0);
  EXPECT_EQ(final_state("a"), final_state("b"));
  EXPECT_NE(final_state("a"), final_state("c"));
}

TEST_F(Training, ThreadsDoNotChangeBitsInStrictMode) {
  ASSERT_EQ(train({"run.name=a", "runtime.threads=1"}).exit_code, 0);
  ASSERT_EQ(train({"run.name=b", "runtime.threads=2"}).exit_code, 0);
  EXPECT_EQ(final_state("a"), final_state("b"));
}

TEST_F(Training, MicroBatchesAddUp) {
  // Not the same bits (the order of additions differs), but the same training.
  ASSERT_EQ(train({"run.name=a", "model.dropout=0", "model.attention_dropout=0"}).exit_code, 0);
  ASSERT_EQ(train({"run.name=b", "model.dropout=0", "model.attention_dropout=0", "train.micro_batch_size=4"}).exit_code,
            0);
  const auto last_loss = [&](const std::string& run) {
    const std::string m = space.read("runs/" + run + "/metrics.jsonl");
    const size_t at = m.find("\"event\":\"step\",\"step\":30,");
    return std::stod(m.substr(m.find("\"loss\":", at) + 7, 12));
  };
  EXPECT_NEAR(last_loss("a"), last_loss("b"), 1e-3);
}

TEST_F(Training, RecomputationDoesNotChangeBits) {
  ASSERT_EQ(train({"run.name=a", "memory.recompute=none"}).exit_code, 0);
  ASSERT_EQ(train({"run.name=b", "memory.recompute=selective"}).exit_code, 0);
  ASSERT_EQ(train({"run.name=c", "memory.recompute=full"}).exit_code, 0);
  EXPECT_EQ(final_state("a"), final_state("b"));
  EXPECT_EQ(final_state("a"), final_state("c"));
}

// In a file of the run's directory, of which nothing is left; as any other state in checkpoints.
TEST_F(Training, OffloadedStateDoesNotChangeBits) {
  const std::string bf16 = "precision.mode=bf16", offload = "memory.offload=optimizer", stop = "train.stop_at_step=7";
  ASSERT_EQ(train({"run.name=a", bf16}).exit_code, 0);
  ASSERT_EQ(train({"run.name=b", bf16, offload}).exit_code, 0);
  EXPECT_EQ(final_state("a"), final_state("b"));
  for (const auto& entry : std::filesystem::directory_iterator(space.path() / "runs/b"))
    EXPECT_EQ(entry.path().filename().string().find("offload"), std::string::npos) << entry.path();
  ASSERT_EQ(train({"run.name=c", bf16, offload, stop}).exit_code, 0);
  ASSERT_EQ(train({"run.name=c", bf16}).exit_code, 0);
  EXPECT_EQ(final_state("a"), final_state("c"));
  ASSERT_EQ(train({"run.name=d", bf16, stop}).exit_code, 0);
  ASSERT_EQ(train({"run.name=d", bf16, offload, "memory.offload_directory=elsewhere"}).exit_code, 0);
  EXPECT_EQ(final_state("a"), final_state("d"));
  EXPECT_TRUE(std::filesystem::is_empty(space.path() / "elsewhere"));
  // Of three layers the first one's activations go, too.
  const std::string layers = "model.n_layers=3";
  ASSERT_EQ(train({"run.name=f", bf16, layers}).exit_code, 0);
  ASSERT_EQ(train({"run.name=g", bf16, layers, "memory.offload=activations", stop}).exit_code, 0);
  ASSERT_EQ(train({"run.name=g", bf16, layers, "memory.offload=all"}).exit_code, 0);
  EXPECT_EQ(final_state("f"), final_state("g"));
  const ProcessResult r = train({"run.name=e", offload, "memory.offload_directory=/proc/none"});
  EXPECT_EQ(r.exit_code, 2);
  EXPECT_NE(r.err.find("memory.offload: no file can be made in /proc/none"), std::string::npos) << r.err;
  EXPECT_FALSE(std::filesystem::exists(space.path() / "runs/e")) << "before anything is written";
}

TEST_F(Training, StoppedAndResumedIsTheSameRun) {
  for (const std::string mode : {"fp32", "fp16", "bf16"}) {
    const std::vector<std::string> precision{"precision.mode=" + mode};
    auto with = [&](std::vector<std::string> more) {
      more.insert(more.end(), precision.begin(), precision.end());
      return train(more);
    };
    ASSERT_EQ(with({"run.name=straight-" + mode}).exit_code, 0);
    for (int stop : {1, 7, 16, 29}) {
      const std::string name = "run.name=pieces-" + mode + std::to_string(stop);
      ASSERT_EQ(with({name, "train.stop_at_step=" + std::to_string(stop)}).exit_code, 0);
      ASSERT_EQ(with({name}).exit_code, 0);
      EXPECT_EQ(final_state("pieces-" + mode + std::to_string(stop)), final_state("straight-" + mode)) << stop;
    }
  }
}

TEST_F(Training, AMixtureInStagesAndABatchThatGrowsResumeExactly) {
  const auto staged = [&](std::vector<std::string> more) {
    more.insert(more.end(), {"data.sources=[{name: first, path: shards}, {name: late, path: shards, weight: 0}]",
                             "data.stages=[{from_tokens: 960, weights: [1, 1]}, {from_tokens: 1920, weights: [0, 1]}]",
                             "train.global_batch_size=6", "train.batch_ramp={tokens: 3840}", "logging.interval=1"});
    return train(more);
  };
  ASSERT_EQ(staged({"run.name=straight"}).exit_code, 0);
  for (const int stop : {3, 11, 17}) {
    const std::string name = "pieces" + std::to_string(stop);
    ASSERT_EQ(staged({"run.name=" + name, "train.stop_at_step=" + std::to_string(stop)}).exit_code, 0);
    ASSERT_EQ(staged({"run.name=" + name}).exit_code, 0);
    EXPECT_EQ(final_state(name), final_state("straight")) << stop;
  }
  // Samples of 48 tokens: 20 of the first source, then 10 of each, then of the late one.
  const std::string metrics = space.read("runs/straight/metrics.jsonl");
  const auto number = [&](const std::string& key, size_t from) {
    return std::stod(metrics.substr(metrics.find("\"" + key + "\":", from) + key.size() + 3, 12));
  };
  EXPECT_EQ(number("tokens", metrics.find("\"event\":\"step\",\"step\":1,")), 2 * 48);
  const size_t last = metrics.find("\"event\":\"step\",\"step\":30,");
  const double samples = number("tokens", last) / 48;
  const size_t shares = metrics.find("\"sources\"", last);
  EXPECT_NEAR(number("share", metrics.find("late", shares)), (samples - 30) / samples, 0.01);
}

TEST_F(Training, EveryUpdateRuleLearnsAndResumesExactly) {
  struct Rule {
    std::string name;
    std::vector<std::string> settings;
    std::vector<const char*> state;  // tensors of the checkpoint
  };
  const std::string adafactor = "optimizer.name=adafactor", lr = "optimizer.lr=5e-2";
  const std::vector<Rule> rules = {
      {"adafactor",
       {adafactor, lr},
       {"[3, 32]              v_col.layers.0.attention.qkv.weight", "v.layers.0.norm1.bias"}},
      {"adafactor-fp16",
       {adafactor, lr, "precision.mode=fp16"},
       {"v_row.layers.0.mlp.up.weight", "master.embedding.token"}},
      {"adafactor-m", {adafactor, lr, "optimizer.adafactor.beta1=0.9", "precision.mode=bf16"}, {"m.embedding.token"}},
      {"relative", {"optimizer.scale_parameter=true", lr}, {"m.embedding.token", "v.embedding.token"}},
      {"without-masters", {"precision.mode=bf16", "precision.master=none"}, {"m.embedding.token"}},
      {"fused",
       {"precision.gradients=fused", "train.micro_batch_size=4", "train.on_nonfinite.policy=rollback",
        "train.clip_grad=0.5"},
       {"m.embedding.token", "v.embedding.token"}},
      {"muon",
       {"optimizer.name=muon", "precision.mode=bf16", "precision.moments=bf16"},
       {"m.layers.0.mlp.up.weight", "v.embedding.token"}},
      {"fp8",
       {"precision.mode=fp8", "precision.fp8.amax_history=7"},
       {"[3, 7]               fp8_amax.layers.0.mlp.up.weight", "fp8_scale.layers.0.attention.out.weight"}},
      {"int8", {"precision.mode=int8_qat"}, {"master.embedding.token"}},
      {"bert", {"optimizer.bias_correction=false"}, {"m.embedding.token", "v.embedding.token"}},
  };
  for (const Rule& rule : rules) {
    const auto with = [&](std::vector<std::string> more) {
      more.insert(more.end(), rule.settings.begin(), rule.settings.end());
      return train(more);
    };
    ASSERT_EQ(with({"run.name=straight-" + rule.name}).exit_code, 0) << rule.name;
    for (const char* stop : {"1", "17"}) {
      const std::string name = "run.name=pieces-" + rule.name + stop;
      ASSERT_EQ(with({name, std::string("train.stop_at_step=") + stop, "runtime.threads=1"}).exit_code, 0);
      ASSERT_EQ(with({name}).exit_code, 0);
      EXPECT_EQ(final_state("pieces-" + rule.name + stop), final_state("straight-" + rule.name)) << stop;
    }
    const std::string metrics = space.read("runs/straight-" + rule.name + "/metrics.jsonl");
    const size_t last = metrics.find("\"event\":\"step\",\"step\":30,");
    EXPECT_LT(std::stod(metrics.substr(metrics.find("\"loss\":", last) + 7, 12)), 5) << rule.name;
    const ProcessResult files = space.mixtape(
        {"inspect", "checkpoint", "runs/straight-" + rule.name + "/checkpoints/step-00000030", "--tensors"});
    EXPECT_EQ(files.exit_code, 0) << files.err;
    for (const char* tensor : rule.state) EXPECT_NE(files.out.find(tensor), std::string::npos) << tensor << files.out;
  }
  EXPECT_NE(final_state("straight-bert"), final_state("straight-relative"));
  const ProcessResult changed = train({"run.name=straight-adafactor", adafactor, lr, "optimizer.adafactor.beta1=0.5"});
  EXPECT_EQ(changed.exit_code, 2);
  EXPECT_NE(changed.err.find("optimizer.adafactor.beta1"), std::string::npos) << changed.err;
}

TEST_F(Training, SignalsSaveAndExit75) {
  ASSERT_EQ(train({"run.name=straight", "train.max_steps=4000", "train.stop_at_step=30"}).exit_code, 0);
  for (const int signal : {SIGTERM, SIGINT, SIGUSR1}) {
    const std::string name = "stopped" + std::to_string(signal);
    const int pid = space.start({"train", "tiny.yaml", "run.name=" + name, "train.max_steps=4000",
                                 "checkpoint.interval=0", "eval.interval=0", "logging.sample_interval=0"});
    while (space.read("runs/" + name + "/metrics.jsonl").find("\"event\":\"step\"") == std::string::npos)
      std::this_thread::sleep_for(10ms);
    kill(pid, signal);
    EXPECT_EQ(Workspace::wait(pid), 75);
    EXPECT_NE(space.read("runs/" + name + "/metrics.jsonl").find("\"reason\":\"signal\""), std::string::npos);
  }
}

TEST_F(Training, KilledAtAnyMomentNothingIsLost) {
  ASSERT_EQ(train({"run.name=straight"}).exit_code, 0);
  // How long a run takes, so that the kills fall everywhere in it, savings included.
  const auto begin = std::chrono::steady_clock::now();
  ASSERT_EQ(train({"run.name=timed"}).exit_code, 0);
  const double length = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  int killed = 0;
  for (int i = 0; i < 20; ++i) {
    const int pid = space.start({"train", "tiny.yaml", "run.name=killed", "checkpoint.interval=1"});
    const double share = uniform(philox(philox_key(3), uint64_t(i), 0, Purpose::test)[0]);
    std::this_thread::sleep_for(std::chrono::duration<double>(length * (0.05 + 0.5 * share)));
    kill(pid, SIGKILL);
    killed += Workspace::wait(pid) == 128 + SIGKILL;
  }
  EXPECT_GT(killed, 3);
  const ProcessResult last = train({"run.name=killed", "checkpoint.interval=1"});
  ASSERT_EQ(last.exit_code, 0) << last.err;
  EXPECT_EQ(final_state("killed"), final_state("straight"));
}

TEST_F(Training, ADamagedCheckpointIsPassedOver) {
  ASSERT_EQ(train({"run.name=straight"}).exit_code, 0);
  ASSERT_EQ(train({"run.name=a", "train.stop_at_step=10"}).exit_code, 0);
  const std::string file = "runs/a/checkpoints/step-00000010/optimizer.safetensors";
  std::string bytes = space.read(file);
  bytes[bytes.size() / 2] ^= 1;
  space.write(file, bytes);
  const ProcessResult r = train({"run.name=a"});
  ASSERT_EQ(r.exit_code, 0) << r.err;
  EXPECT_NE(r.err.find("step-00000010"), std::string::npos) << r.err;
  EXPECT_EQ(final_state("a"), final_state("straight"));
}

TEST_F(Training, NeverAStartFromZeroOverDamagedCheckpoints) {
  ASSERT_EQ(train({"run.name=a", "train.stop_at_step=2"}).exit_code, 0);
  space.write("runs/a/checkpoints/step-00000002/optimizer.safetensors", "no");
  const ProcessResult r = train({"run.name=a"});
  EXPECT_EQ(r.exit_code, 4) << r.err;
}

TEST_F(Training, WhatMayNotChangeOnResumeIsRefused) {
  ASSERT_EQ(train({"run.name=a", "train.stop_at_step=2"}).exit_code, 0);
  const ProcessResult r = train({"run.name=a", "model.n_layers=3"});
  EXPECT_EQ(r.exit_code, 2);
  EXPECT_NE(r.err.find("model.n_layers"), std::string::npos) << r.err;
  EXPECT_EQ(train({"run.name=a", "optimizer.lr=1e-3", "train.stop_at_step=4"}).exit_code, 0);
}

TEST_F(Training, AStartFromAnotherShapeNamesTheKeys) {
  ASSERT_EQ(train({"run.name=a", "train.stop_at_step=2"}).exit_code, 0);
  const ProcessResult r = train({"run.name=b", "run.init_from=runs/a", "model.n_layers=3", "model.d_ff=64"});
  EXPECT_EQ(r.exit_code, 2);
  EXPECT_NE(r.err.find("run.init_from: runs/a is a model of another shape: model.n_layers is 2 there and 3 here"),
            std::string::npos)
      << r.err;
  EXPECT_EQ(train({"run.name=c", "run.init_from=runs/a", "train.stop_at_step=1"}).exit_code, 0);
}

TEST_F(Training, InspectionFindsTheDamagedAmongAllCheckpoints) {
  ASSERT_EQ(train({"run.name=a", "train.stop_at_step=8"}).exit_code, 0);
  const std::string file = "runs/a/checkpoints/step-00000008/optimizer.safetensors";
  space.write(file, space.read(file).substr(10));
  const ProcessResult r = space.mixtape({"inspect", "checkpoint", "runs/a"});
  EXPECT_EQ(r.exit_code, 4);
  EXPECT_NE(r.out.find("DAMAGED runs/a/checkpoints/step-00000008"), std::string::npos) << r.out;
  EXPECT_NE(r.out.find("runs/a/checkpoints/step-00000004: whole"), std::string::npos) << r.out;
  EXPECT_NE(r.err.find("1 of 2 checkpoints damaged"), std::string::npos) << r.err;
}

TEST_F(Training, ErrorsNameTheirPlace) {
  const struct {
    std::vector<std::string> arguments;
    int exit_code;
    std::string text;
  } cases[] = {{{"optimizer.beta_2=0.9"}, 2, "optimizer.beta_2"},
               {{"data.tokenizer=nowhere.json"}, 3, "nowhere.json"},
               {{"data.sources=[{name: x, path: nowhere}]"}, 3, "nowhere"},
               {{"model.vocab_size=100"}, 2, "model.vocab_size"},
               {{"device=cuda:99"}, 2, "device"},
               {{"run.init_from=nowhere"}, 4, "nowhere"},
               {{"precision.fp8.margin=2"}, 2, "precision.fp8.margin"}};
  for (const auto& c : cases) {
    const ProcessResult r = train(c.arguments);
    EXPECT_EQ(r.exit_code, c.exit_code) << c.arguments[0] << ": " << r.err;
    EXPECT_NE(r.err.find(c.text), std::string::npos) << r.err;
  }
  EXPECT_EQ(space.mixtape({"train", "nowhere.yaml"}).exit_code, 2);
}

// Decay with a factor of -99 a step makes weights that overflow within twenty steps, whatever the gradients are.
const std::vector<std::string> exploding{"optimizer.lr=10", "optimizer.weight_decay=10", "schedule.warmup_steps=0",
                                         "train.on_nonfinite.limit=3"};

TEST_F(Training, NonFiniteStepsFollowThePolicy) {
  const auto explode = [&](std::vector<std::string> more) {
    more.insert(more.end(), exploding.begin(), exploding.end());
    return train(more);
  };
  const ProcessResult stop = explode({"run.name=stop", "train.on_nonfinite.policy=stop"});
  EXPECT_EQ(stop.exit_code, 5);
  EXPECT_NE(stop.err.find("train.on_nonfinite.policy"), std::string::npos) << stop.err;
  EXPECT_NE(space.read("runs/stop/report.html").find("class=\"pill bad\">stopped"), std::string::npos);

  const ProcessResult skip = explode({"run.name=skip"});
  EXPECT_EQ(skip.exit_code, 5);
  EXPECT_NE(skip.err.find("3 steps in a row"), std::string::npos) << skip.err;
  const std::string metrics = space.read("runs/skip/metrics.jsonl");
  EXPECT_NE(metrics.find("\"event\":\"skip\""), std::string::npos);

  const ProcessResult rollback =
      explode({"run.name=rollback", "train.on_nonfinite.policy=rollback", "checkpoint.interval=1"});
  EXPECT_EQ(rollback.exit_code, 5);
  EXPECT_NE(rollback.err.find("3 rollbacks"), std::string::npos) << rollback.err;

  const ProcessResult fused = explode({"run.name=fused", "train.on_nonfinite.policy=rollback", "checkpoint.interval=1",
                                       "precision.gradients=fused", "train.micro_batch_size=4"});
  EXPECT_EQ(fused.exit_code, 5);
  EXPECT_NE(fused.err.find("3 rollbacks"), std::string::npos) << fused.err;
}

TEST_F(Training, Fp16FindsItsLossScale) {
  const ProcessResult r = train({"run.name=a", "precision.mode=fp16", "precision.loss_scale.initial=1e38"});
  ASSERT_EQ(r.exit_code, 0) << r.err;
  const std::string metrics = space.read("runs/a/metrics.jsonl");
  EXPECT_NE(metrics.find("\"event\":\"skip\""), std::string::npos) << "1e38 must overflow";
  EXPECT_NE(metrics.find("\"event\":\"step\",\"step\":30,"), std::string::npos);
}

TEST_F(Training, AScaleThatCannotFallIsAFailure) {
  const ProcessResult r = train({"run.name=a", "precision.mode=fp16", "precision.loss_scale.initial=1e38",
                                 "precision.loss_scale.min=1e38", "train.on_nonfinite.limit=3"});
  EXPECT_EQ(r.exit_code, 5) << r.err;
}

}  // namespace
}  // namespace mixtape
