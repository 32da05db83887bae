// Training on a GPU, emulated: `mixtape_emulated` trains, stops, goes on, evaluates and generates like `mixtape` on the
// CPU, though its device runs what is asked for as late as it may, and repeats steps as recorded graphs.
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>

#include "core/base/error.h"
#include "tests/end_to_end/process.h"

namespace mixtape {
namespace {

const char* const emulated_config = R"(
run: {name: tiny}
model: {n_layers: 1, d_model: 32, n_heads: 2, vocab_size: 320, max_positions: 32, dropout: 0.1, attention_dropout: 0.1}
data:
  tokenizer: t.json
  sources: [{name: text, path: shards}]
  validation_split: 0.1
  seq_length: 24
train: {micro_batch_size: 2, global_batch_size: 4, max_steps: 6}
precision: {mode: bf16}
optimizer: {lr: 1.0e-2}
schedule: {warmup_steps: 2}
eval: {interval: 3, tokens: 100}
logging: {interval: 1, tensorboard: false, sample_interval: 0}
)";

const std::vector<std::string> emulated_bert = {"model.family=encoder", "objective.name=masked_lm",
                                                "model.norm_placement=post", "model.token_types=2",
                                                "model.mlm_head=true"};
const std::vector<std::string> emulated_t5 = {"model.family=encoder_decoder",
                                              "objective.name=span_corruption",
                                              "model.position=relative_bias",
                                              "model.relative_buckets=8",
                                              "model.relative_distance=12",
                                              "model.norm=rmsnorm",
                                              "model.bias=false"};

struct SeenStep {
  double loss = 0, grad_norm = 0, loss_scale = 0;
  bool skipped = false;
};
struct SeenRun {
  std::vector<SeenStep> steps;
  std::vector<double> validations;
  std::string log;
};

class Emulated : public testing::Test {
 protected:
  void SetUp() override {
    space.write("text.txt", sample_text(60));
    space.write("tiny.yaml", emulated_config);
    ASSERT_EQ(space
                  .mixtape({"tokenizer", "train", "text.txt", "-o", "t.json", "--vocab-size", "320", "--special", "<s>",
                            "<pad>", "</s>", "<mask>", "<extra_id_0>", "<extra_id_1>", "<extra_id_2>", "<extra_id_3>"})
                  .exit_code,
              0);
    const ProcessResult r =
        space.mixtape({"data", "prepare", "text.txt", "-t", "t.json", "--separator", "%", "-o", "shards"});
    ASSERT_EQ(r.exit_code, 0) << r.err;
  }

  using Program = ProcessResult (Workspace::*)(const std::vector<std::string>&) const;
  static std::vector<std::string> arguments(const std::string& name, const std::string& device,
                                            const std::vector<std::string>& more) {
    std::vector<std::string> list{"train", "tiny.yaml", "run.name=" + name, "device=" + device};
    list.insert(list.end(), more.begin(), more.end());
    return list;
  }
  SeenRun on(Program program, const std::string& name, const std::string& device,
             const std::vector<std::string>& more) const {
    const ProcessResult r = (space.*program)(arguments(name, device, more));
    EXPECT_EQ(r.exit_code, 0) << r.err;
    SeenRun run{.log = r.out + r.err};
    std::istringstream metrics(space.read("runs/" + name + "/metrics.jsonl"));
    for (std::string line; std::getline(metrics, line);) {
      const auto j = nlohmann::json::parse(line);
      const bool skipped = j["event"] == "skip";
      const auto number = [&](const char* key) { return j[key].is_number() ? j[key].get<double>() : INFINITY; };
      if (skipped || j["event"] == "step")
        run.steps.push_back({number("loss"), number("grad_norm"), j.value("loss_scale", 1.0), skipped});
      if (j["event"] == "eval") run.validations.push_back(j["loss"]);
    }
    return run;
  }
  SeenRun on_cpu(const std::string& name, const std::vector<std::string>& more = {}) const {
    return on(&Workspace::mixtape, name + "-cpu", "cpu", more);
  }
  SeenRun on_gpu(const std::string& name, const std::vector<std::string>& more = {}) const {
    return on(&Workspace::mixtape_emulated, name, "cuda", more);
  }
  std::string final_state(const std::string& run, int step = 6) const {
    const std::string at = fmt::format("runs/{}/checkpoints/step-{:08}/", run, step);
    const std::string weights = space.read(at + "model.safetensors");
    EXPECT_FALSE(weights.empty()) << run << " has no final checkpoint";
    return weights + space.read(at + "optimizer.safetensors");
  }

  // The same losses within what a rounding in another place does.
  void expect_like_the_cpu(const std::string& name, const std::vector<std::string>& more) const {
    const SeenRun want = on_cpu(name, more), got = on_gpu(name, more);
    ASSERT_EQ(got.steps.size(), 6u) << got.log;
    ASSERT_EQ(want.steps.size(), 6u);
    for (size_t i = 0; i < 6; ++i) {
      EXPECT_NEAR(got.steps[i].loss, want.steps[i].loss, 0.01 * want.steps[i].loss) << name << ", step " << i + 1;
      EXPECT_NEAR(got.steps[i].grad_norm, want.steps[i].grad_norm, 0.05 * want.steps[i].grad_norm) << name << i + 1;
    }
    EXPECT_LT(got.steps.back().loss, 0.95 * got.steps.front().loss) << name;
    ASSERT_EQ(got.validations.size(), 2u);
    for (size_t i = 0; i < 2; ++i) EXPECT_NEAR(got.validations[i], want.validations[i], 0.01 * want.validations[i]);
    EXPECT_EQ(got.log.find("not run as a CUDA graph"), got.log.npos) << got.log;
  }

  Workspace space;
};

TEST_F(Emulated, AGptTrainsLikeOnTheCpu) { expect_like_the_cpu("gpt", {}); }
TEST_F(Emulated, ABertTrainsLikeOnTheCpu) { expect_like_the_cpu("bert", emulated_bert); }
TEST_F(Emulated, AT5TrainsLikeOnTheCpu) { expect_like_the_cpu("t5", emulated_t5); }

// The first scales are too large for fp16: steps are skipped until the device, which nobody asks, has lowered them.
TEST_F(Emulated, Float16FindsItsScale) {
  const std::vector<std::string> fp16{"precision.mode=fp16", "precision.loss_scale.initial=1.0e+9",
                                      "precision.loss_scale.backoff=0.001"};
  const SeenRun want = on_cpu("fp16", fp16), got = on_gpu("fp16", fp16);
  ASSERT_EQ(got.steps.size(), want.steps.size());
  int skipped = 0;
  for (size_t i = 0; i < want.steps.size(); ++i) {
    EXPECT_EQ(got.steps[i].skipped, want.steps[i].skipped) << i;
    EXPECT_EQ(got.steps[i].loss_scale, want.steps[i].loss_scale) << i;
    EXPECT_NEAR(got.steps[i].loss, want.steps[i].loss, 0.01 * want.steps[i].loss) << i;
    skipped += want.steps[i].skipped;
  }
  EXPECT_GT(skipped, 0);
  EXPECT_EQ(want.steps.size(), size_t(6 + skipped));
}

// Recorded or not, in another order of queues and threads, stopped and resumed: the same weights and moments.
TEST_F(Emulated, GraphsOrderAndAStopChangeNoBit) {
  on_gpu("whole");
  const std::string want = final_state("whole");
  on_gpu("plain", {"runtime.cuda_graphs=false"});
  EXPECT_EQ(final_state("plain"), want) << "without graphs";
  on_gpu("stopped", {"train.stop_at_step=3"});
  on_gpu("stopped");
  EXPECT_EQ(final_state("stopped"), want) << "stopped and resumed";
  setenv("MIXTAPE_EMULATOR_SEED", "77", 1);
  on_gpu("seed");
  unsetenv("MIXTAPE_EMULATOR_SEED");
  EXPECT_EQ(final_state("seed"), want) << "in another order";
}

// In memory of the host, and in a file: the same weights and moments, in another order of queues too.
TEST_F(Emulated, OffloadChangesNoBit) {
  const std::string layers = "model.n_layers=3", all = "memory.offload=all", disk = "memory.offload_directory=outside";
  on_gpu("held", {layers});
  const std::string want = final_state("held");
  on_gpu("host", {layers, all});
  EXPECT_EQ(final_state("host"), want);
  setenv("MIXTAPE_EMULATOR_SEED", "77", 1);
  on_gpu("disk", {layers, all, disk, "train.stop_at_step=3"});
  on_gpu("disk", {layers, all, disk});
  unsetenv("MIXTAPE_EMULATOR_SEED");
  EXPECT_EQ(final_state("disk"), want);
  EXPECT_TRUE(std::filesystem::is_empty(space.path() / "outside"));
}

// Processes with a GPU each exchange beside the computing, at every ZeRO stage, as one GPU does alone. The reader of a
// bucket that waits for the wrong thing, or not at all, reads it before it is there.
TEST_F(Emulated, SeveralGpusTrainLikeOne) {
  if (std::system("mpirun --version >/dev/null 2>&1") != 0) GTEST_SKIP() << "there is no mpirun here";
  setenv("MIXTAPE_EMULATOR_DEVICES", "2", 1);
  const std::vector<std::string> fp32 = {"precision.mode=fp32", "train.global_batch_size=8"};
  const SeenRun want = on_gpu("alone", fp32);
  for (const int stage : {0, 1, 2, 3}) {
    const std::string name = fmt::format("stage{}", stage);
    std::vector<std::string> more = fp32;
    more.push_back(fmt::format("parallel.zero_stage={}", stage));
    SeenRun got = on(&Workspace::two_emulated, name, "cuda", more);
    ASSERT_EQ(got.steps.size(), 6u) << got.log;
    for (size_t i = 0; i < 6; ++i) {
      EXPECT_NEAR(got.steps[i].loss, want.steps[i].loss, 1e-5 * want.steps[i].loss) << name << ", step " << i + 1;
      EXPECT_NEAR(got.steps[i].grad_norm, want.steps[i].grad_norm, 1e-3 * want.steps[i].grad_norm) << name << i + 1;
    }
    ASSERT_EQ(got.validations.size(), 2u);
    for (size_t i = 0; i < 2; ++i) EXPECT_NEAR(got.validations[i], want.validations[i], 1e-4 * want.validations[i]);
    EXPECT_EQ(got.log.find("not run as a CUDA graph"), got.log.npos) << got.log;
    if (stage == 1 || stage == 2) continue;  // which the two others have the parts of
    // In another order of the queues.
    setenv("MIXTAPE_EMULATOR_SEED", fmt::format("{}", 50 + stage).c_str(), 1);
    on(&Workspace::two_emulated, name + "b", "cuda", more);
    unsetenv("MIXTAPE_EMULATOR_SEED");
    EXPECT_EQ(final_state(name + "b"), final_state(name)) << name;
  }
  // Stopped at one stage, gone on with at another, and alone.
  std::vector<std::string> stopped = fp32;
  stopped.insert(stopped.end(), {"parallel.zero_stage=3", "train.stop_at_step=3"});
  on(&Workspace::two_emulated, "moved", "cuda", stopped);
  const SeenRun moved = on_gpu("moved", fp32);
  ASSERT_EQ(moved.steps.size(), 6u);
  EXPECT_NEAR(moved.steps.back().loss, want.steps.back().loss, 1e-5 * want.steps.back().loss);
  unsetenv("MIXTAPE_EMULATOR_DEVICES");
}

// Two GPUs that share out each layer train as one does that has all, whatever the order of their queues, and what they
// save one goes on with.
TEST_F(Emulated, SeveralGpusShareOutLayers) {
  if (std::system("mpirun --version >/dev/null 2>&1") != 0) GTEST_SKIP() << "there is no mpirun here";
  const std::vector<std::string> alone{"precision.mode=fp32", "train.global_batch_size=4"};
  const auto with = [](std::vector<std::string> a, const std::vector<std::string>& b) {
    a.insert(a.end(), b.begin(), b.end());
    return a;
  };
  for (const auto& [family, settings] :
       {std::pair<std::string, std::vector<std::string>>{"gpt", {}}, {"bert", emulated_bert}, {"t5", emulated_t5}}) {
    const std::vector<std::string> one = with(alone, settings), two = with(one, {"parallel.tensor_parallel_size=2"});
    const SeenRun want = on_gpu(family + "-alone", one);
    setenv("MIXTAPE_EMULATOR_DEVICES", "2", 1);
    const SeenRun got = on(&Workspace::two_emulated, family, "cuda", two);
    ASSERT_EQ(got.steps.size(), 6u) << got.log;
    for (size_t i = 0; i < 6; ++i) {
      EXPECT_NEAR(got.steps[i].loss, want.steps[i].loss, 1e-5 * want.steps[i].loss) << family << ", step " << i + 1;
      EXPECT_NEAR(got.steps[i].grad_norm, want.steps[i].grad_norm, 1e-3 * want.steps[i].grad_norm) << family << i + 1;
    }
    ASSERT_EQ(got.validations.size(), 2u);
    for (size_t i = 0; i < 2; ++i) EXPECT_NEAR(got.validations[i], want.validations[i], 1e-4 * want.validations[i]);
    if (family == "gpt") {
      setenv("MIXTAPE_EMULATOR_SEED", "60", 1);
      on(&Workspace::two_emulated, "again", "cuda", with(two, {"logging.sample_interval=3"}));
      unsetenv("MIXTAPE_EMULATOR_SEED");
      EXPECT_EQ(final_state("again"), final_state(family)) << "in another order, with samples";
      on(&Workspace::two_emulated, "moved", "cuda", with(two, {"train.stop_at_step=3"}));
      const SeenRun moved = on_gpu("moved", one);
      ASSERT_EQ(moved.steps.size(), 6u);
      EXPECT_NEAR(moved.steps.back().loss, want.steps.back().loss, 1e-5 * want.steps.back().loss);
    }
    unsetenv("MIXTAPE_EMULATOR_DEVICES");
  }
}

// In strict mode the device adds what arrives, in an order that one GPU has too.
TEST_F(Emulated, StrictModeGivesTheSameBitsOnSeveralGpus) {
  if (std::system("mpirun --version >/dev/null 2>&1") != 0) GTEST_SKIP() << "there is no mpirun here";
  const std::vector<std::string> strict{"determinism=strict", "train.global_batch_size=8"};
  on_gpu("one", strict);
  const std::string want = final_state("one");
  setenv("MIXTAPE_EMULATOR_DEVICES", "2", 1);
  for (const int stage : {0, 1, 2, 3}) {
    std::vector<std::string> more = strict;
    more.push_back(fmt::format("parallel.zero_stage={}", stage));
    const std::string name = fmt::format("strict{}", stage);
    setenv("MIXTAPE_EMULATOR_SEED", fmt::format("{}", 70 + stage).c_str(), 1);
    on(&Workspace::two_emulated, name, "cuda", more);
    unsetenv("MIXTAPE_EMULATOR_SEED");
    EXPECT_EQ(final_state(name), want) << name;
  }
  unsetenv("MIXTAPE_EMULATOR_DEVICES");
}

// The largest magnitudes that scales of fp8 follow from are those of all ranks.
TEST_F(Emulated, SeveralGpusScaleFp8Alike) {
  if (std::system("mpirun --version >/dev/null 2>&1") != 0) GTEST_SKIP() << "there is no mpirun here";
  const std::vector<std::string> fp8{"determinism=strict", "train.global_batch_size=8", "precision.mode=fp8"};
  on_gpu("fp8", fp8);
  setenv("MIXTAPE_EMULATOR_DEVICES", "2", 1);
  on(&Workspace::two_emulated, "fp8-two", "cuda", fp8);
  unsetenv("MIXTAPE_EMULATOR_DEVICES");
  EXPECT_EQ(final_state("fp8-two"), final_state("fp8"));
}

TEST_F(Emulated, SeveralProcessesNeedAGpuEach) {
  if (std::system("mpirun --version >/dev/null 2>&1") != 0) GTEST_SKIP() << "there is no mpirun here";
  const ProcessResult one = space.two_emulated(arguments("one", "cuda", {}));
  EXPECT_EQ(one.exit_code, 2) << one.err;
  EXPECT_NE(one.err.find("this machine has 1 GPUs and at least 2 processes of this run"), std::string::npos) << one.err;
}

TEST_F(Emulated, EvaluatesAndGenerates) {
  on_cpu("model", {"precision.mode=fp32"});
  const auto both = [&](const std::vector<std::string>& arguments) {
    std::vector<std::string> cpu = arguments, gpu = arguments;
    cpu.insert(cpu.end(), {"--device", "cpu"});
    gpu.insert(gpu.end(), {"--device", "cuda"});
    const ProcessResult want = space.mixtape(cpu), got = space.mixtape_emulated(gpu);
    EXPECT_EQ(want.exit_code, 0) << want.err;
    EXPECT_EQ(got.exit_code, 0) << got.err;
    return std::pair(want.out, got.out);
  };
  const auto [text, emulated_text] = both(
      {"generate", "runs/model-cpu", "--prompt", "The ", "--max-new-tokens", "8", "--temperature", "0", "--quiet"});
  EXPECT_EQ(text, emulated_text);
  const auto [want, got] = both({"eval", "runs/model-cpu", "shards", "--max-tokens", "60", "--json"});
  EXPECT_NEAR(nlohmann::json::parse(got)["loss"].get<double>(), nlohmann::json::parse(want)["loss"].get<double>(),
              1e-4);
}

// From a run to a directory of codes, and what is computed with that; what has no meaning with codes is refused.
TEST_F(Emulated, Int8WeightsAreExportedAndUsed) {
  on_cpu("qat", {"precision.mode=int8_qat"});
  const ProcessResult exported = space.mixtape({"export", "runs/qat-cpu", "int8", "--int8"});
  ASSERT_EQ(exported.exit_code, 0) << exported.err;
  EXPECT_NE(exported.out.find("for Mixtape alone"), exported.out.npos) << exported.out;  // it is a GPT-2
  const auto run = [&](Program program, std::vector<std::string> words, const char* device) {
    words.insert(words.end(), {"--device", device});
    const ProcessResult r = (space.*program)(words);
    EXPECT_EQ(r.exit_code, 0) << r.err;
    return r.out;
  };
  const auto loss = [&](Program program, const char* model, const char* device) {
    const std::string out =
        run(program, {"eval", model, "shards", "--seq-length", "24", "--max-tokens", "300", "--json"}, device);
    return nlohmann::json::parse(out)["loss"].get<double>();
  };
  const double on_cpu = loss(&Workspace::mixtape, "int8", "cpu");
  EXPECT_NEAR(loss(&Workspace::mixtape_emulated, "int8", "cuda"), on_cpu, 1e-3);
  const double whole = loss(&Workspace::mixtape, "runs/qat-cpu", "cpu");
  EXPECT_NEAR(on_cpu, whole, 0.02 * whole);
  EXPECT_NE(on_cpu, whole);
  const std::vector<std::string> words{"generate", "int8",          "--prompt", "The ",   "--max-new-tokens",
                                       "8",        "--temperature", "0",        "--quiet"};
  EXPECT_EQ(run(&Workspace::mixtape_emulated, words, "cuda"), run(&Workspace::mixtape, words, "cpu"));

  const auto refused = [&](const std::vector<std::string>& arguments, const char* what) {
    const ProcessResult r = space.mixtape(arguments);
    EXPECT_EQ(r.exit_code, 2) << r.err;
    EXPECT_NE(r.err.find(what), r.err.npos) << r.err;
  };
  refused({"export", "int8", "again", "--int8"}, "int8 weights already");
  refused({"export", "runs/qat-cpu", "again", "--int8", "--adapter"}, "--int8");
  // As numbers again, which are those of the codes.
  ASSERT_EQ(space.mixtape({"export", "int8", "numbers", "--dtype", "fp32"}).exit_code, 0);
  EXPECT_NEAR(loss(&Workspace::mixtape, "numbers", "cpu"), on_cpu, 0.02 * whole);
}

TEST_F(Emulated, BenchMemoryMeasuresTheDevice) {
  for (const std::string mode : {"precision.mode=fp32", "precision.mode=bf16,precision.moments=int8"}) {
    const ProcessResult r =
        space.mixtape_emulated({"bench", "memory", "--preset", "gpt2", "--mode", mode, "--run", "--json", "device=cuda",
                                "model.n_layers=2", "model.d_model=32", "model.n_heads=2", "model.vocab_size=61",
                                "data.seq_length=16", "train.micro_batch_size=1", "train.global_batch_size=1"});
    ASSERT_EQ(r.exit_code, 0) << r.err;
    const nlohmann::json line = nlohmann::json::parse(r.out)["cases"][0];
    EXPECT_EQ(line["measured_bytes"], line["arena_bytes"]) << mode;
    EXPECT_EQ(line["counted_arena_bytes"], line["arena_bytes"]) << mode;
  }
}

TEST_F(Emulated, DoctorAndRefusals) {
  EXPECT_NE(space.mixtape_emulated({"doctor"}).out.find("emulated on the host"), std::string::npos);
  const ProcessResult far = space.mixtape_emulated(arguments("far", "cuda:7", {}));
  EXPECT_EQ(far.exit_code, 2);
  EXPECT_NE(far.err.find("the last GPU of this machine is cuda:0"), std::string::npos) << far.err;
}

}  // namespace
}  // namespace mixtape
