// Whole models on the emulated device: forward, backward, norm and update, a few steps, beside the CPU's. Every family
// and kind of attention, fp32, bf16, and fp16 through an overflow.
#include "core/model/transformer.h"

#include <cmath>

#include "core/ops/optimizer.h"
#include "tests/cuda/device.h"

namespace mixtape {
namespace {

constexpr int64_t sequences = 2, length = 24, decoder_length = 10;

struct Training {
  std::vector<float> losses, norms;
  std::vector<int32_t> finite;
  std::vector<std::byte> weights;
};

uint32_t draw(uint64_t step, uint64_t i) { return philox(philox_key(11, step), i, 0, Purpose::test)[0]; }

// Two documents a sequence, each with positions of its own.
StackInputs stack_inputs(const Device& d, const ModelSpec& spec, int64_t length, uint64_t step) {
  const int64_t rows = sequences * length, first = length / 3;
  std::vector<int32_t> tokens, positions, segments;
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t t = r % length;
    tokens.push_back(int32_t(draw(step, uint64_t(r)) % uint32_t(spec.vocab_size)));
    positions.push_back(int32_t(t < first ? t : t - first));
    if (t != 0 && t != first) continue;
    const auto start = int32_t(r), n = int32_t(t == 0 ? first : length - first);
    segments.insert(segments.end(), {start, n, start, n});
  }
  const auto n = int64_t(segments.size()) / 4;
  return {.tokens = d.upload(tokens),
          .positions = d.upload(positions),
          .segments = d.upload(segments, {n, 4}),
          .n_segments = d.upload(std::vector<int32_t>{int32_t(n)})};
}

ModelInputs inputs_of(const Device& d, const ModelSpec& spec, uint64_t step) {
  const bool two = spec.family == Family::encoder_decoder;
  ModelInputs inputs{.main = stack_inputs(d, spec, length, step)};
  if (two) {
    inputs.decoder = stack_inputs(d, spec, decoder_length, step + 1000);
    std::vector<int32_t> pairs;
    for (int32_t s = 0; s < sequences; ++s)
      pairs.insert(pairs.end(),
                   {s * int32_t(decoder_length), int32_t(decoder_length), s * int32_t(length), int32_t(length)});
    inputs.cross_segments = d.upload(pairs, {sequences, 4});
    inputs.n_cross_segments = d.upload(std::vector<int32_t>{int32_t(sequences)});
  }
  std::vector<int32_t> targets;
  for (int64_t r = 0; r < sequences * (two ? decoder_length : length); ++r)
    targets.push_back(r % 5 == 4 ? -1 : int32_t(draw(step + 2000, uint64_t(r)) % uint32_t(spec.vocab_size)));
  inputs.targets = d.upload(targets);
  return inputs;
}

// One step for each loss scale.
Training train_model(Device d, const ModelSpec& spec, DType type, const std::vector<float>& loss_scales) {
  Transformer model(spec, length, spec.family == Family::encoder_decoder ? decoder_length : 0);
  Parameters parameters(model.layout(),
                        {.weights = type,
                         .master = type == DType::f32 ? MasterWeights::none : MasterWeights::fp32,
                         .moments = {.first = true, .second = SecondMoments::full}},
                        *d);
  parameters.initialise(7);
  model.make_tables(*d);
  const Tensor device_state = d.make({int64_t(sizeof(StepState))}, DType::u8);
  auto* state = reinterpret_cast<StepState*>(device_state.raw());
  const auto ranges = parameters.update_ranges(0.1f);
  Tape tape(*d, &parameters, state);
  Training run;
  StepState host{.inverse_targets = 1.f / 20, .learning_rate = 3e-3f};
  for (const float scale : loss_scales) {
    host.philox = philox_key(5, host.attempts);
    host.loss_scale = scale;
    d->copy_from_host(device_state, &host);
    parameters.buckets().new_step();
    {
      const ModelInputs inputs = inputs_of(d, spec, 1);
      const Loss loss = model.loss(tape, inputs);
      run.losses.push_back(d.values<float>(loss.mean)[0]);
      tape.backward();
    }
    tape.clear();
    const auto n = int64_t(ranges.size());
    gradient_norm(
        *d, {.state = state, .gradients = parameters.gradients, .ranges = ranges.data(), .n_ranges = n, .clip = 1});
    adamw(*d, {.state = state,
               .weights = parameters.weights,
               .master = parameters.master.memory(),
               .gradients = parameters.gradients,
               .m = parameters.m.values.memory(),
               .v = parameters.v.values.memory(),
               .ranges = ranges.data(),
               .n_ranges = n,
               .beta1 = 0.9f,
               .beta2 = 0.95f,
               .eps = 1e-8f});
    d->copy_to_host(&host, device_state);
    run.norms.push_back(host.grad_norm);
    run.finite.push_back(host.finite);
    ++host.attempts;
    host.updates += uint64_t(host.finite);
  }
  run.weights = d.bits(type == DType::f32 ? parameters.weights : parameters.master.memory());
  return run;
}

ModelSpec tiny() {
  ModelSpec spec;
  spec.n_layers = 2, spec.d_model = 32, spec.n_heads = 4, spec.vocab_size = 61, spec.max_positions = 32;
  return spec;
}
ModelSpec gpt() {
  ModelSpec spec = tiny();
  spec.dropout = 0.1, spec.attention_dropout = 0.1;
  return spec;
}
ModelSpec llama() {
  ModelSpec spec = tiny();
  spec.n_kv_heads = 2, spec.position = Position::rope, spec.norm = NormKind::rmsnorm,
  spec.activation = Activation::swiglu;
  spec.bias = false, spec.tied_embeddings = false, spec.window = 9;
  return spec;
}
ModelSpec bloom() {
  ModelSpec spec = tiny();
  spec.position = Position::alibi, spec.embedding_norm = true;
  return spec;
}
ModelSpec bert() {
  ModelSpec spec = tiny();
  spec.family = Family::encoder, spec.norm_placement = NormPlacement::post, spec.final_norm = false;
  spec.embedding_norm = true, spec.token_types = 2, spec.mlm_head = true, spec.lm_head_bias = true;
  spec.activation = Activation::gelu;
  return spec;
}
ModelSpec t5() {
  ModelSpec spec = tiny();
  spec.family = Family::encoder_decoder, spec.position = Position::relative_bias, spec.norm = NormKind::rmsnorm;
  spec.activation = Activation::geglu_tanh, spec.bias = false, spec.attention_scale = 1, spec.logit_scale = 0;
  spec.relative_buckets = 8, spec.relative_distance = 12, spec.init = InitScheme::fan_in, spec.init_std = 1;
  return spec;
}

void expect_same_training(const char* name, const ModelSpec& spec, DType type, double within) {
  const std::vector<float> scales(sanitized ? 1 : 3, 1.f);
  const Training want = train_model(cpu(), spec, type, scales), got = train_model(emulated(), spec, type, scales);
  for (size_t step = 0; step < scales.size(); ++step) {
    EXPECT_NEAR(got.losses[step], want.losses[step], within * want.losses[0]) << name << " step " << step;
    EXPECT_NEAR(got.norms[step], want.norms[step], 20 * within * want.norms[step]) << name << " step " << step;
  }
  if (sanitized) return;
  EXPECT_LT(got.losses.back(), got.losses[0]) << name;
  EXPECT_EQ(train_model(emulated(99), spec, type, scales).weights, got.weights) << name << ": another order of threads";
}

TEST(EmulatedModels, TrainLikeTheCpuInFloat32) {
  expect_same_training("GPT", gpt(), DType::f32, 1e-5);
  expect_same_training("LLaMA", llama(), DType::f32, 1e-5);
  expect_same_training("BLOOM", bloom(), DType::f32, 1e-5);
  expect_same_training("BERT", bert(), DType::f32, 1e-5);
  expect_same_training("T5", t5(), DType::f32, 1e-5);
}

TEST(EmulatedModels, TrainLikeTheCpuInBfloat16) {
  expect_same_training("GPT", gpt(), DType::bf16, 3e-3);
  expect_same_training("LLaMA", llama(), DType::bf16, 3e-3);
  expect_same_training("BERT", bert(), DType::bf16, 3e-3);
  expect_same_training("T5", t5(), DType::bf16, 3e-3);
}

// The second step's scale is too large for fp16: it changes nothing but the count of attempts.
TEST(EmulatedModels, TrainInFloat16ThroughAnOverflow) {
  const std::vector<float> scales = {1024, 1e9f, 1024, 1024};
  const Training want = train_model(cpu(), llama(), DType::f16, scales),
                 got = train_model(emulated(), llama(), DType::f16, scales);
  EXPECT_EQ(want.finite, (std::vector<int32_t>{1, 0, 1, 1}));
  EXPECT_EQ(got.finite, want.finite);
  EXPECT_EQ(got.losses[1], got.losses[2]);
  for (size_t step = 0; step < scales.size(); ++step)
    EXPECT_NEAR(got.losses[step], want.losses[step], 1e-3 * want.losses[0]) << step;
}

}  // namespace
}  // namespace mixtape
