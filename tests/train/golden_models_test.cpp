// Whole models against transformers in float64: logits, loss, every gradient, ten AdamW steps, greedy generation.
//
// Data and tolerances: tests/golden/models, as computed once with transformers; a tolerance is what fp32 arithmetic was
// seen to need, with room.
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "train/checkpoint/huggingface/model.h"
#include "train/forward.h"
#include "train/generate.h"
#include "train/resume.h"
#include "train/step.h"

namespace mixtape {
namespace {

const std::string root = std::string(MIXTAPE_GOLDEN) + "/models/";

struct Golden {
  HfModel model;
  SafetensorsFile inputs, expected;
  nlohmann::json facts;
  Batch batch;
  std::vector<int64_t> mask;  // of the rows of logits: where they are compared

  explicit Golden(const std::string& name, const std::string& files_of = "")
      : model(import_huggingface(root + (files_of.empty() ? name : files_of))),
        inputs(SafetensorsFile::open(root + name + "/batch.safetensors")),
        expected(SafetensorsFile::open(root + name + "/expected.safetensors")),
        facts(nlohmann::json::parse(std::ifstream(root + name + "/expected.json"))),
        batch(batch_from_inputs(inputs, model.spec)) {
    if (model.spec.family == Family::encoder_decoder) {
      for (const int32_t target : batch.targets) mask.push_back(target >= 0);
      return;
    }
    const StoredTensor& m = inputs.at("attention_mask");
    mask.resize(m.data.size() / sizeof(int64_t));
    std::memcpy(mask.data(), m.data.data(), m.data.size());
  }
  // The most targets of a row of the stack that predicts.
  int64_t most_targets() const {
    const int64_t length = batch.decoder.row_length ? batch.decoder.row_length : batch.row_length;
    int64_t most = 0;
    for (int64_t r = 0; r < batch.rows; ++r) {
      const auto row = batch.targets.begin() + r * length;
      most = std::max<int64_t>(most, std::count_if(row, row + length, [](int32_t t) { return t >= 0; }));
    }
    return most;
  }
  std::vector<float> values(const std::string& tensor) const {
    const StoredTensor& t = expected.at(tensor);
    std::vector<float> v(size_t(count_of(t.shape)));
    read_fp32(t, v);
    return v;
  }
  double number(const nlohmann::json& j) const {
    return j.is_string() ? std::stod(j.get<std::string>()) : j.get<double>();
  }
};

struct Mode {
  DType type = DType::f32;
  RecomputePolicy recompute = RecomputePolicy::none;
  bool head_on_all_rows = false;
};

EngineOptions options_for(const Golden& golden, Mode mode, bool training) {
  return {.model = golden.model.spec,
          .device = {.device = "cpu", .determinism = Determinism::strict},
          .types = {mode.type, mode.type != DType::f32 ? MasterWeights::fp32 : MasterWeights::none},
          .training = training,
          .moments = {.first = true, .second = SecondMoments::full},
          .gradients = true,
          .rows = golden.batch.rows,
          .row_length = golden.batch.row_length,
          .decoder_length = golden.batch.decoder.row_length,
          .most_targets = mode.head_on_all_rows ? 0 : golden.most_targets(),
          .recompute = mode.recompute};
}

constexpr int64_t test_capacity = int64_t(1) << 30;

std::unique_ptr<Engine> ready_engine(const Golden& golden, Mode mode, bool training) {
  auto engine = std::make_unique<Engine>(options_for(golden, mode, training), test_capacity);
  load_weights(*engine, golden.model);
  engine->load(golden.batch);
  engine->state().inverse_targets = float(1.0 / double(golden.batch.n_targets));
  engine->upload_state();
  return engine;
}

double largest(const std::vector<float>& v) {
  double most = 0;
  for (float x : v) most = std::max(most, double(std::abs(x)));
  return most;
}

// Elements whose exact gradient is 0 (key biases): fp32 gives noise there, which Adam turns into steps.
bool is_noise(const Golden& golden, const std::string& tensor, size_t element) {
  const auto& zero = golden.facts.value("mathematically_zero_gradient", nlohmann::json::object());
  if (!zero.contains(tensor)) return false;
  for (const auto& range : zero[tensor])
    if (element >= range[0].get<size_t>() && element < range[1].get<size_t>()) return true;
  return false;
}

std::vector<NamedTensor> gradients_of(const Golden& golden, Engine& engine) {
  std::vector<NamedTensor> all;
  const ParameterLayout& layout = engine.model().layout();
  for (int id = 0; id < layout.size(); ++id) {
    std::vector<float> values(size_t(layout[id].count()));
    EXPECT_TRUE(engine.parameters().buckets().was_written(id)) << layout[id].name << " got no gradient";
    engine.backend().copy_to_host(values.data(), engine.parameters().buckets().gradient(id));
    for (NamedTensor& t : golden.model.to_file(layout[id].name, values)) all.push_back(std::move(t));
  }
  return all;
}

class GoldenModel : public testing::TestWithParam<const char*> {};

TEST_P(GoldenModel, LogitsAndLoss) {
  const Golden golden(GetParam());
  const auto engine = ready_engine(golden, {}, false);
  const std::vector<float> got = logits_of(*engine), want = golden.values("logits");
  ASSERT_EQ(got.size(), want.size());
  const double limit = 1e-5 * largest(want);
  const size_t vocab = size_t(golden.model.spec.vocab_size);
  for (size_t i = 0; i < got.size(); ++i)
    if (golden.mask[i / vocab]) {
      ASSERT_NEAR(got[i], want[i], limit) << "logit " << i;
    }
  EXPECT_NEAR(engine->run_micro_batch(false), golden.number(golden.facts["loss"]), 1e-5);
}

void expect_gradients(const Golden& golden, Mode mode) {
  const auto engine = ready_engine(golden, mode, false);
  engine->parameters().buckets().new_step();
  engine->run_micro_batch(true);
  size_t compared = 0;
  for (const NamedTensor& t : gradients_of(golden, *engine)) {
    const std::vector<float> want = golden.values("grad." + t.name);
    ASSERT_EQ(t.values.size(), want.size()) << t.name;
    const double limit = 1e-4 * largest(want);
    for (size_t i = 0; i < want.size(); ++i)
      if (!is_noise(golden, t.name, i)) {
        ASSERT_NEAR(t.values[i], want[i], limit) << t.name << " element " << i;
      }
    ++compared;
  }
  size_t stored = 0;
  for (const StoredTensor& t : golden.expected.tensors()) stored += t.name.starts_with("grad.");
  EXPECT_EQ(compared, stored) << "every gradient of the file is compared";
}

TEST_P(GoldenModel, Gradients) { expect_gradients(Golden(GetParam()), {}); }
TEST_P(GoldenModel, GradientsWithTheHeadOnAllRows) { expect_gradients(Golden(GetParam()), {.head_on_all_rows = true}); }

TEST_P(GoldenModel, RecomputationChangesNoBit) {
  const Golden golden(GetParam());
  std::vector<std::vector<NamedTensor>> results;
  for (const RecomputePolicy policy : {RecomputePolicy::none, RecomputePolicy::selective, RecomputePolicy::full}) {
    const auto engine = ready_engine(golden, {.recompute = policy}, false);
    engine->parameters().buckets().new_step();
    engine->run_micro_batch(true);
    results.push_back(gradients_of(golden, *engine));
  }
  for (size_t policy = 1; policy < 3; ++policy)
    for (size_t i = 0; i < results[0].size(); ++i)
      EXPECT_EQ(results[policy][i].values, results[0][i].values) << results[0][i].name << ", policy " << policy;
}

Config adamw_config(Mode mode) {
  Config config;
  config.optimizer = {.lr = 1e-3, .betas = {0.9, 0.95}, .eps = 1e-8, .weight_decay = 0.1};
  config.train.clip_grad = 1.0;
  config.precision.mode = mode.type == DType::bf16 ? PrecisionMode::bf16 : PrecisionMode::fp32;
  return config;
}

// Losses before each update and after the last.
std::vector<double> ten_steps(const Golden& golden, Engine& engine, Mode mode, std::vector<double>* norms) {
  TrainingStep step(engine, adamw_config(mode));
  GlobalBatch global{.micro_batches = {golden.batch}, .n_targets = golden.batch.n_targets};
  std::vector<double> losses;
  for (int i = 0; i < 10; ++i) {
    const StepResult r = step.run(global, 1e-3);
    EXPECT_TRUE(r.finite);
    losses.push_back(r.loss);
    norms->push_back(r.grad_norm);
  }
  losses.push_back(engine.run_micro_batch(false));
  return losses;
}

TEST_P(GoldenModel, TenAdamWSteps) {
  const Golden golden(GetParam());
  const auto engine = ready_engine(golden, {}, true);
  std::vector<double> norms;
  const std::vector<double> losses = ten_steps(golden, *engine, {}, &norms);
  const auto& facts = golden.facts["adamw"];
  ASSERT_EQ(losses.size(), facts["losses"].size());
  for (size_t i = 0; i < losses.size(); ++i)
    EXPECT_NEAR(losses[i], golden.number(facts["losses"][i]), 1e-4) << "step " << i;
  for (size_t i = 0; i < norms.size(); ++i) {
    const double want = golden.number(facts["grad_norms"][i]);
    EXPECT_NEAR(norms[i], want, (i == 0 ? 1e-5 : 1e-3) * want) << "step " << i;
  }
  const ParameterLayout& layout = engine->model().layout();
  for (int id = 0; id < layout.size(); ++id) {
    std::vector<float> values(size_t(layout[id].count()));
    engine->parameters().store(id, values.data());
    for (const NamedTensor& t : golden.model.to_file(layout[id].name, values)) {
      const std::vector<float> want = golden.values("final." + t.name);
      double sum = 0;
      size_t counted = 0;
      for (size_t i = 0; i < want.size(); ++i) {
        if (is_noise(golden, t.name, i)) continue;
        ASSERT_NEAR(t.values[i], want[i], 2e-3) << t.name << " element " << i;
        sum += std::abs(double(t.values[i]) - double(want[i]));
        ++counted;
      }
      if (counted) {
        EXPECT_LT(sum / double(counted), 1e-5) << t.name;
      }
    }
  }
}

TEST_P(GoldenModel, ThePlanIsTheMeasuredPeak) {
  const Golden golden(GetParam());
  // The second micro-batch adds to gradients, which may take other scratch than storing them.
  const GlobalBatch global{.micro_batches = {golden.batch, golden.batch}, .n_targets = 2 * golden.batch.n_targets};
  for (const DType type : {DType::f32, DType::bf16})
    for (const RecomputePolicy policy : {RecomputePolicy::none, RecomputePolicy::full}) {
      const Mode mode{.type = type, .recompute = policy};
      Engine dry(options_for(golden, mode, true));
      TrainingStep(dry, adamw_config(mode)).run(global, 1e-3);
      Engine engine(options_for(golden, mode, true), dry.arena().peak());
      load_weights(engine, golden.model);
      TrainingStep(engine, adamw_config(mode)).run(global, 1e-3);
      EXPECT_EQ(engine.arena().peak(), dry.arena().peak());
      EXPECT_EQ(engine.arena().at_peak(), dry.arena().at_peak());
    }
}

TEST_P(GoldenModel, TrainsInBf16) {
  const Golden golden(GetParam());
  const Mode mode{.type = DType::bf16};
  const auto engine = ready_engine(golden, mode, true);
  engine->parameters().buckets().new_step();
  EXPECT_NEAR(engine->run_micro_batch(true), golden.number(golden.facts["loss"]), 3e-2);
  for (const NamedTensor& t : gradients_of(golden, *engine)) {
    const std::vector<float> want = golden.values("grad." + t.name);
    double dot = 0, a = 0, b = 0;
    for (size_t i = 0; i < want.size(); ++i) {
      if (is_noise(golden, t.name, i)) continue;
      dot += double(t.values[i]) * want[i], a += double(t.values[i]) * t.values[i], b += double(want[i]) * want[i];
    }
    // A key bias is noise throughout.
    if (b > 0) {
      EXPECT_GT(dot / std::sqrt(a * b), 0.99) << t.name;
    }
  }
  std::vector<double> norms;
  const std::vector<double> losses = ten_steps(golden, *engine, mode, &norms);
  for (size_t i = 0; i < losses.size(); ++i)
    EXPECT_NEAR(losses[i], golden.number(golden.facts["adamw"]["losses"][i]), 5e-2) << "step " << i;
}

class GoldenDecoder : public testing::TestWithParam<const char*> {};

TEST_P(GoldenDecoder, GreedyGeneration) {
  const Golden golden(GetParam());
  const auto engine = ready_engine(golden, {}, false);
  const auto& greedy = golden.facts["greedy"];
  std::vector<std::vector<int32_t>> prompts, want;
  const bool encodes = golden.model.spec.family == Family::encoder_decoder;
  prompts.push_back(greedy[encodes ? "encoder_input_ids" : "prompt"].get<std::vector<int32_t>>());
  want.push_back(greedy["new_tokens"].get<std::vector<int32_t>>());
  Generator generator(*engine, 1, int64_t(prompts[0].size()) + 12);
  EXPECT_EQ(generator.generate(
                prompts,
                {.max_new_tokens = 12, .temperature = 0, .decoder_start = greedy.value("decoder_start_token_id", 0)}),
            want);
}

// Prompts of different lengths, sampled: each gives the same tokens alone and in a batch, also in groups.
TEST_P(GoldenDecoder, ABatchIsItsPromptsOneByOne) {
  const Golden golden(GetParam());
  const auto engine = ready_engine(golden, {}, false);
  const std::vector<std::vector<int32_t>> prompts{{5}, {7, 11, 13, 2, 90, 41}, {7, 11}, {3, 3, 3}, {100, 1, 64, 9}};
  const auto with_slots = [&](int64_t slots, double temperature) {
    Generator generator(*engine, slots, 6 + 12);
    return generator.generate(prompts, {.max_new_tokens = 12,
                                        .temperature = temperature,
                                        .top_k = 40,
                                        .top_p = 0.95,
                                        .decoder_start = golden.facts["greedy"].value("decoder_start_token_id", 0)});
  };
  for (const double temperature : {0.0, 1.0}) {
    const auto alone = with_slots(1, temperature);
    EXPECT_EQ(with_slots(5, temperature), alone);
    EXPECT_EQ(with_slots(2, temperature), alone);
  }
}

const auto test_name = [](const auto& info) {
  std::string name = info.param;
  for (char& c : name) c = std::isalnum(uint8_t(c)) ? c : '_';
  return name;
};
INSTANTIATE_TEST_SUITE_P(Families, GoldenModel,
                         testing::Values("gpt2", "llama", "llama-tied", "bloom", "opt", "bert", "roberta", "bart", "t5",
                                         "t5-v1.1"),
                         test_name);
INSTANTIATE_TEST_SUITE_P(Families, GoldenDecoder,
                         testing::Values("gpt2", "llama", "llama-tied", "bloom", "opt", "bart", "t5", "t5-v1.1"),
                         test_name);

// The same weights in other clothes give the same logits.
class GoldenVariant : public testing::TestWithParam<std::pair<const char*, const char*>> {};

TEST_P(GoldenVariant, Logits) {
  const auto [parent, variant] = GetParam();
  const Golden golden(parent, std::string("variants/") + variant);
  const auto engine = ready_engine(golden, {}, false);
  const std::vector<float> got = logits_of(*engine), want = golden.values("logits");
  const size_t vocab = size_t(golden.model.spec.vocab_size);
  for (size_t i = 0; i < got.size(); ++i)
    if (golden.mask[i / vocab]) {
      ASSERT_NEAR(got[i], want[i], 1e-5 * largest(want)) << "logit " << i;
    }
}

INSTANTIATE_TEST_SUITE_P(Variants, GoldenVariant,
                         testing::Values(std::pair{"llama", "llama-sharded"}, std::pair{"gpt2", "gpt2-hub-names"},
                                         std::pair{"bloom", "bloom-hub-names"}, std::pair{"bert", "bert-hub-names"},
                                         std::pair{"t5", "t5-hub-names"}),
                         [](const auto& info) {
                           std::string name = info.param.second;
                           for (char& c : name) c = std::isalnum(uint8_t(c)) ? c : '_';
                           return name;
                         });

TEST(GoldenVariantBf16, LogitsOfRoundedWeights) {
  const Golden golden("gpt2", "variants/gpt2-bf16");
  const auto engine = ready_engine(golden, {}, false);
  const SafetensorsFile expected = SafetensorsFile::open(root + "variants/gpt2-bf16/expected.safetensors");
  std::vector<float> want(size_t(count_of(expected.at("logits").shape)));
  read_fp32(expected.at("logits"), want);
  const std::vector<float> got = logits_of(*engine);
  const size_t vocab = size_t(golden.model.spec.vocab_size);
  for (size_t i = 0; i < got.size(); ++i)
    if (golden.mask[i / vocab]) {
      ASSERT_NEAR(got[i], want[i], 1e-5 * largest(want)) << "logit " << i;
    }
}

}  // namespace
}  // namespace mixtape
