// Models with int8 weights: what they compute beside the same weights rounded in training's way, what they weigh, and
// decoding with a cache of keys and values.
#include <gtest/gtest.h>

#include <cmath>
#include <optional>

#include "tests/checkpoint/temporary_directory.h"
#include "tests/train/tiny_run.h"
#include "train/checkpoint/huggingface/model.h"
#include "train/forward.h"
#include "train/generate.h"
#include "train/resume.h"
#include "train/step.h"

namespace mixtape {
namespace {

const std::string int8_golden = std::string(MIXTAPE_GOLDEN) + "/models/";

struct Inference {
  Batch batch;
  std::unique_ptr<Engine> engine;

  // Of the golden batch. `int8`: computes with what the files store as codes.
  Inference(const HfModel& model, const std::string& golden, bool int8, QuantisationSpec rounding = {}) {
    const auto inputs = SafetensorsFile::open(int8_golden + golden + "/batch.safetensors");
    batch = batch_from_inputs(inputs, model.spec);
    const EngineOptions options{.model = model.spec,
                                .device = {.device = "cpu", .determinism = Determinism::strict},
                                .rows = batch.rows,
                                .row_length = batch.row_length,
                                .decoder_length = batch.decoder.row_length,
                                .quantisation = rounding,
                                .int8_weights = int8};
    Engine planning(options);
    logits_of(planning);
    planning.run_micro_batch(false);
    engine = std::make_unique<Engine>(options, planning.arena().peak());
    load_weights(*engine, model);
    engine->load(batch);
    engine->state().inverse_targets = float(1.0 / double(batch.n_targets));
    engine->upload_state();
  }
  double loss() const { return engine->run_micro_batch(false); }
};

class Int8Inference : public testing::TestWithParam<const char*> {};

// The same layers of the same numbers, but that one multiplies codes and the other what they stand for. Both round
// inputs by token, where a sum that differs in its last place may take another code.
TEST_P(Int8Inference, IsTheModelWithRoundedOperands) {
  const HfModel model = import_huggingface(int8_golden + GetParam());
  const TemporaryDirectory directory;
  export_huggingface(directory / "int8", model, {.dtype = DType::f32, .int8 = true});
  const HfModel files = import_huggingface(directory / "int8");
  const Inference whole(model, GetParam(), false), rounded(model, GetParam(), false, {.kind = QuantisationSpec::int8}),
      int8(files, GetParam(), true);
  const double expected = rounded.loss(), loss = int8.loss();
  EXPECT_NEAR(loss, expected, 1e-4 * expected);
  EXPECT_NE(loss, whole.loss()) << "nothing is rounded";
  EXPECT_NEAR(loss, whole.loss(), 0.05 * expected);
  // And as numbers where codes are not asked for, with inputs as they are.
  const Inference decoded(files, GetParam(), false);
  EXPECT_NEAR(decoded.loss(), whole.loss(), 0.05 * expected);
  EXPECT_NE(decoded.loss(), loss);
}

TEST_P(Int8Inference, AWeightIsAByteAndItsRowAScale) {
  const HfModel model = import_huggingface(int8_golden + GetParam());
  const TemporaryDirectory directory;
  export_huggingface(directory / "int8", model, {.dtype = DType::f32, .int8 = true});
  const Inference int8(import_huggingface(directory / "int8"), GetParam(), true);
  const auto aligned = [](int64_t n) { return (n + 255) / 256 * 256; };
  int64_t bytes = 0, codes = 0, scales = 0;
  for (const ParameterShape& p : parameter_shapes(model.spec)) {
    const bool layer = p.shape.size() == 2 && p.name.find("layers.") != p.name.npos && p.name.ends_with(".weight");
    const int64_t n = aligned(count_of(p.shape));
    if (layer)
      codes += n, scales += 4 * aligned(p.shape[0]);
    else
      bytes += 4 * n;
  }
  EXPECT_GT(codes, 0);
  EXPECT_EQ(int8.engine->arena().by_category()[size_t(Category::parameters)], bytes + codes + scales);
}

INSTANTIATE_TEST_SUITE_P(Golden, Int8Inference,
                         testing::Values("gpt2", "llama", "bloom", "opt", "bert", "roberta", "t5", "t5-v1.1", "bart"),
                         [](const auto& info) {
                           std::string name = info.param;
                           for (char& c : name)
                             if (!isalnum(static_cast<unsigned char>(c))) c = '_';
                           return name;
                         });

// Token by token from a cache: the likeliest by the logits of the whole sequence, alone and in company.
TEST(Int8Generation, IsThatOfTheWholeSequence) {
  for (const std::string name : {"llama", "gpt2"}) {
    const TemporaryDirectory directory;
    export_huggingface(directory / "int8", import_huggingface(int8_golden + name), {.dtype = DType::f32, .int8 = true});
    const HfModel files = import_huggingface(directory / "int8");
    constexpr int64_t length = 16;
    const EngineOptions options{.model = files.spec,
                                .device = {.device = "cpu", .determinism = Determinism::strict},
                                .rows = 1,
                                .row_length = length,
                                .int8_weights = true};
    Engine engine(options, int64_t(1) << 26);
    load_weights(engine, files);
    const std::vector<std::vector<int32_t>> prompts{{7, 11, 13, 2}, {5}, {3, 3, 90}};
    const SamplingOptions greedy{.max_new_tokens = 8, .temperature = 0};
    Generator generator(engine, 3, length);
    const auto texts = generator.generate(prompts, greedy);
    for (size_t p = 0; p < prompts.size(); ++p) {
      EXPECT_EQ(generator.generate({prompts[p]}, greedy)[0], texts[p]);
      std::vector<int32_t> all = prompts[p];
      all.insert(all.end(), texts[p].begin(), texts[p].end());
      const auto n = int32_t(all.size());
      Batch batch{.rows = 1, .row_length = length, .tokens = all};
      for (int32_t i = 0; i < n; ++i) batch.positions.push_back(i);
      batch.segments = {{0, n, 0, n}};
      pad_batch(batch, options);
      engine.load(batch);
      const std::vector<float> logits = logits_of(engine);
      for (size_t i = prompts[p].size(); i < all.size(); ++i) {
        const auto row = logits.begin() + int64_t(i - 1) * files.spec.vocab_size;
        EXPECT_EQ(std::max_element(row, row + files.spec.vocab_size) - row, all[i]) << name << " " << p << " " << i;
      }
    }
  }
}

// Trained with rounded operands, then stored as codes: the loss that training saw, up to the roundings of operands to
// bf16 that codes do not need.
TEST(Int8Inference, KeepsTheLossOfInt8Training) {
  for (const std::string activation : {"gelu_tanh", "swiglu"}) {
    Config config = tiny_config(
        {"precision.mode=int8_qat", "model.activation=" + activation, "model.n_layers=2", "model.n_heads=2"});
    const EngineOptions options = training_options(config);
    Engine engine(options, plan_training(options, config).peak);
    engine.parameters().initialise(1);
    TrainingStep step(engine, config);
    double loss = 0;
    for (int i = 0; i < 30; ++i) loss = step.run(tiny_batch(), 3e-3).loss;
    EXPECT_LT(loss, 3) << "from log 50 = 3.9";

    const Batch batch = tiny_batch().micro_batches[0];
    const auto loss_of = [&](Engine& e) {
      e.load(batch);
      e.state().inverse_targets = 1.f / 32;
      e.upload_state();
      return e.run_micro_batch(false);
    };
    const TemporaryDirectory directory;
    const auto get = [&](const std::string& name) -> ParameterView {
      const Tensor weight = engine.parameters().weight(engine.model().layout().find(name));
      return {weight.dtype(), weight.raw()};
    };
    export_huggingface(directory / "int8", config.model, get,
                       {.dtype = DType::bf16, .int8 = true, .allow_native = true});
    EngineOptions inference{.model = config.model,
                            .device = options.device,
                            .types = {.compute = DType::bf16},
                            .rows = 2,
                            .row_length = 16,
                            .int8_weights = true};
    Engine int8(inference, int64_t(1) << 26);
    load_weights(int8, import_huggingface(directory / "int8"));
    const double trained = loss_of(engine), stored = loss_of(int8);
    EXPECT_NEAR(stored, trained, 0.005 * trained) << activation;
  }
}

}  // namespace
}  // namespace mixtape
