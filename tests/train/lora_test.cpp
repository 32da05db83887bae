// Low-rank adapters: what learns, what is saved, what merging gives.
#include "train/optim/lora.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "core/model/transformer.h"
#include "tests/checkpoint/temporary_directory.h"
#include "tests/train/tiny_run.h"
#include "train/checkpoint/huggingface/adapter.h"
#include "train/resume.h"
#include "train/step.h"

namespace mixtape {
namespace {

Config tiny(const std::vector<std::string>& more = {}) {
  std::vector<std::string> overrides{"model.n_layers=2", "model.n_heads=4", "lora.rank=4"};
  overrides.insert(overrides.end(), more.begin(), more.end());
  return tiny_config(overrides);
}

double loss_of(Engine& engine) {
  engine.state().inverse_targets = 1.f / 32;
  engine.upload_state();
  engine.load(tiny_batch().micro_batches[0]);
  return engine.run_micro_batch(false);
}

struct Training {
  Config config;
  EngineOptions options = training_options(config);
  Engine engine{options, plan_training(options, config).peak};
  TrainingStep step{engine, config};

  explicit Training(const std::vector<std::string>& overrides) : config(tiny(overrides)) {
    engine.parameters().initialise(1);
  }
  std::vector<float> value(const std::string& name) {
    const int id = engine.model().layout().find(name);
    std::vector<float> values(size_t(engine.model().layout()[id].count()));
    engine.parameters().store(id, values.data());
    return values;
  }
};

TEST(Lora, StartsAsTheModelWasAndOnlyAdaptersLearn) {
  Training run({}), plain({"lora.rank=0"});
  EXPECT_EQ(loss_of(run.engine), loss_of(plain.engine));  // B is zero
  const auto weight = run.value("layers.0.attention.qkv.weight"), a = run.value("layers.0.attention.qkv.lora_a");
  const double before = loss_of(run.engine);
  for (int i = 0; i < 20; ++i) run.step.run(tiny_batch(), 1e-2);
  EXPECT_LT(loss_of(run.engine), before - 0.1);
  EXPECT_EQ(run.value("layers.0.attention.qkv.weight"), weight);
  EXPECT_EQ(run.value("embedding.token"), plain.value("embedding.token"));
  EXPECT_NE(run.value("layers.0.attention.qkv.lora_a"), a);
  const ParameterLayout& layout = run.engine.model().layout();
  // Of two layers: A [4, 32] and B [96, 4] of qkv, A [4, 32] and B [32, 4] of out.
  EXPECT_EQ(layout.learning_count(), 2 * (4 * 32 + 96 * 4 + 4 * 32 + 32 * 4));
}

TEST(Lora, TargetsAreChosenByPattern) {
  const LoraSpec lora = lora_of(tiny({"lora.targets=['*.mlp.*', 'layers.1.attention.out']"}));
  EXPECT_EQ(lora.layers, (std::vector<std::string>{"layers.0.mlp.up", "layers.0.mlp.down", "layers.1.attention.out",
                                                   "layers.1.mlp.up", "layers.1.mlp.down"}));
  EXPECT_EQ(lora_of(tiny({"lora.rank=0"})).rank, 0);
  try {
    lora_of(tiny({"lora.targets=['q_proj']"}));
    FAIL();
  } catch (const ConfigError& e) {
    EXPECT_NE(
        std::string(e.what()).find("lora.targets[0]: 'q_proj' matches nothing; the model has layers.0.attention.qkv"),
        std::string::npos)
        << e.what();
  }
}

// The classifier of a label task learns beside the adapters.
TEST(Lora, AHeadOfLabelsLearns) {
  const Config config = tiny({"model.family=encoder", "objective.name=classify", "objective.labels=[a, b]"});
  const EngineOptions options = training_options(config);
  Transformer model(options.model, 16, 0, options.lora);
  model.freeze(options.frozen);
  EXPECT_TRUE(model.layout()[model.layout().find("classifier.weight")].learns);
  EXPECT_TRUE(model.layout()[model.layout().find("pooler.dense.bias")].learns);
  EXPECT_FALSE(model.layout()[model.layout().find("layers.0.attention.qkv.weight")].learns);
}

// A checkpoint holds the base and the adapter; read as a model it is their sum, and a run goes on from it exactly.
class LoraCheckpoint : public testing::TestWithParam<const char*> {};

TEST_P(LoraCheckpoint, MergesAndResumes) {
  const std::string model = GetParam();
  const std::vector<std::string> more{"lora.targets=['*']", "lora.alpha=8", model};
  Training run(more);
  for (int i = 0; i < 5; ++i) run.step.run(tiny_batch(), 1e-2);
  const double loss = loss_of(run.engine);
  const TemporaryDirectory directory;
  const CheckpointDirectory checkpoints(directory / "checkpoints");
  RunState state;
  state.config = to_yaml(run.config);
  state.attempts = state.updates = 5;
  const auto path = save_run(run.engine, state, checkpoints, {.adapter_base = "the/base"}, {});

  // As it is used: merged into a plain model.
  EngineOptions plain = run.options;
  plain.lora = {};
  plain.frozen = {};
  plain.training = false;
  Engine rehearsal(plain);
  rehearsal.run_micro_batch(false);
  Engine merged(plain, rehearsal.arena().peak());
  load_weights(merged, import_huggingface(path));
  EXPECT_NEAR(loss_of(merged), loss, 1e-5);
  // And it is not the base.
  const HfModel files = import_huggingface(path);
  std::vector<float> weight(run.value("layers.1.mlp.down.weight").size());
  files.read("layers.1.mlp.down.weight", weight);
  EXPECT_NE(weight, run.value("layers.1.mlp.down.weight"));

  Training resumed(more);
  load_run(resumed.engine, resumed.step, CheckpointReader(path));
  run.step.run(tiny_batch(), 1e-2);
  resumed.step.run(tiny_batch(), 1e-2);
  for (const ParameterEntry& entry : run.engine.model().layout().entries())
    EXPECT_EQ(run.value(entry.name), resumed.value(entry.name)) << entry.name;

  std::ifstream in(path / "adapter_config.json");
  const auto config = nlohmann::json::parse(in);
  EXPECT_EQ(config.at("peft_type"), "LORA");
  EXPECT_EQ(config.at("r"), 4);
  EXPECT_EQ(config.at("base_model_name_or_path"), "the/base");
  EXPECT_EQ(config.at("fan_in_fan_out"), model == "model.position=learned");  // GPT-2
  const SafetensorsFile adapter = SafetensorsFile::open(path / "adapter_model.safetensors");
  for (const auto& module : config.at("target_modules"))
    for (const char* part : {"A", "B"})
      EXPECT_TRUE(adapter.find("base_model.model." + module.get<std::string>() + ".lora_" + part + ".weight"))
          << module;
  EXPECT_EQ(adapter.tensors().size(), 2 * config.at("target_modules").size());
}

// GPT-2 (transposed weights), LLaMA's q, k and v apart, and an architecture of nobody.
INSTANTIATE_TEST_SUITE_P(
    Families, LoraCheckpoint,
    testing::Values("model.position=learned",
                    "model={position: rope, norm: rmsnorm, activation: swiglu, n_kv_heads: 2, bias: false}",
                    "model={position: learned, norm: rmsnorm}"));

TEST(Lora, AdaptersThatDoNotShareAAreRefused) {
  Training run({"model={position: rope, norm: rmsnorm, activation: swiglu, bias: false}"});
  const TemporaryDirectory directory;
  RunState state;
  state.config = to_yaml(run.config);
  const auto path = save_run(run.engine, state, CheckpointDirectory(directory / "c"), {}, {});
  const auto file = path / "adapter_model.safetensors";
  std::vector<TensorSource> sources;
  std::vector<std::vector<float>> held;
  const SafetensorsFile adapter = SafetensorsFile::open(file);
  for (const StoredTensor& t : adapter.tensors()) {
    auto& values = held.emplace_back(size_t(count_of(t.shape)));
    read_fp32(t, values);
    if (t.name.find("k_proj.lora_A") != std::string::npos) values[0] += 1;
  }
  for (size_t i = 0; i < held.size(); ++i)
    sources.push_back(tensor_source(adapter.tensors()[i].name, DType::f32, adapter.tensors()[i].shape, held[i].data()));
  write_safetensors(path / "changed", sources);
  std::filesystem::rename(path / "changed", file);
  try {
    import_huggingface(path);
    FAIL();
  } catch (const CheckpointError& e) {
    EXPECT_NE(std::string(e.what()).find("merge the adapter"), std::string::npos) << e.what();
  }
}

}  // namespace
}  // namespace mixtape
