// Rules across keys: each rule refuses its case, with the key, the value, where it stands and what to do.
#include <gtest/gtest.h>

#include "tests/config/support.h"
#include "train/config/config.h"

namespace mixtape {
namespace {

const char* const sound = R"(
model: {n_layers: 2, d_model: 64, n_heads: 4, vocab_size: 257, max_positions: 128}
data: {sources: [{path: data/a}], seq_length: 128}
train: {micro_batch_size: 4, global_batch_size: 8, max_steps: 100}
schedule: {warmup_steps: 10}
)";

std::string violation(const std::vector<std::string>& overrides, const BuildFeatures& build = {}) {
  const ResolvedConfig r = parse_config(sound, "a.yaml", overrides);
  return error_text([&] { check(r.config, r.origins, build); });
}

struct Case {
  std::vector<std::string> overrides;
  std::string expected;  // a part of the message
};

void expect_violations(const std::vector<Case>& cases) {
  for (const Case& c : cases) {
    const std::string text = violation(c.overrides);
    EXPECT_NE(text.find(c.expected), std::string::npos)
        << c.overrides[0] << ": the error was: " << text << "\nexpected: " << c.expected;
    EXPECT_EQ(text.find('\n'), std::string::npos) << "more than one violation: " << text;
  }
}

TEST(Check, ASoundConfigurationPasses) { EXPECT_EQ(violation({}), ""); }

TEST(Check, SaysWhereTheValueStands) {
  const ResolvedConfig r =
      parse_config("model: {d_model: 100}\n" + std::string(sound + 1).substr(std::string(sound + 1).find('\n') + 1) +
                       "run:\n  name: a/b\n",
                   "a.yaml", {"model.n_heads=7"});
  const std::string text = error_text([&] { check(r.config, r.origins); });
  EXPECT_NE(text.find("a.yaml:6: run.name is a/b, expected a directory's name"), std::string::npos) << text;
  EXPECT_NE(text.find("\ncommand line: model.n_heads is 7, expected a divisor of model.d_model (100)"),
            std::string::npos)
      << text;
}

TEST(Check, Model) {
  expect_violations({
      {{"model.n_heads=7"}, "command line: model.n_heads is 7, expected a divisor of model.d_model (64)"},
      {{"model.n_kv_heads=3"}, "command line: model.n_kv_heads is 3, expected a divisor of model.n_heads (4)"},
      {{"model.head_dim=257"}, "expected at most 256"},
      {{"model.window_layers=[1]"}, "expected one number a layer (model.n_layers is 2)"},
      {{"model.position=rope", "model.head_dim=15"}, "an even number of rotated dimensions"},
      {{"model.position=rope", "model.rope_fraction=0.3"}, "an even number of rotated dimensions"},
      {{"model.rope_scaling.type=linear"}, "has no effect with model.position learned"},
      {{"model.rope_scaling.factor=2", "model.position=rope"}, "has no effect without model.rope_scaling.type"},
      {{"model.position=rope", "model.rope_scaling={type: llama3, factor: 8, low_freq_factor: 4}"}, "high_freq_factor"},
      {{"model.position=rope", "model.rope_scaling={type: yarn, factor: 8, beta_fast: 1}"}, "less than beta_fast"},
      {{"model.dropout=0.001"}, "from 1/256 to 255/256"},
      {{"model.attention_dropout=0.999"}, "from 1/256 to 255/256"},
      {{"model.pad_id=257"}, "expected a token below model.vocab_size (257)"},
      {{"model.n_decoder_layers=2"}, "which has no effect with model.family decoder"},
      {{"model.position=relative_bias", "model.relative_buckets=7"}, "expected a multiple of 2"},
      {{"model.position=relative_bias", "model.relative_distance=16"}, "expected more than 16"},
      {{"model.qk_norm=true"}, "not available"},
  });
}

TEST(Check, Data) {
  expect_violations({
      {{"data.sources=[]"}, "command line: data.sources is [], expected at least one source"},
      {{"data.sources=[{name: a, weight: 1}]"}, "data.sources[0].path is \"\" (default), expected the path"},
      {{"data.sources=[{path: x/a}, {path: y/a}]"}, "data.sources[1].name is a (derived), expected a name of its own"},
      {{"data.validation_split=0"}, "there is nothing to validate on"},
      {{"data.seq_length=129"}, "expected at most model.max_positions (128)"},
      {{"data.tokenizer=''"}, "expected bytes or a tokenizer's file"},
      {{"data.sources=[{path: a, weight: 0}]"}, "expected a weight above 0 of at least one source"},
      {{"data.stages=[{from_tokens: 9, weights: [1]}, {from_tokens: 9, weights: [2]}]"},
       "data.stages[1].from_tokens is 9, expected each stage to begin after the one before"},
      {{"data.stages=[{from_tokens: 9, weights: [1, 2]}]"},
       "expected 1 numbers from 0 up, one for each of data.sources"},
      {{"data.stages=[{from_tokens: 9, weights: [0]}]"}, "not all 0"},
      {{"data.stages=[{from_tokens: 1e9, weights: [1]}]"}, "but the run ends after 102400 tokens"},
  });
  EXPECT_EQ(violation({"data.sources=[{path: a}, {path: b, weight: 0}]",
                       "data.stages=[{from_tokens: 9, weights: [0.5, 0.5]}]"}),
            "");
  EXPECT_EQ(violation({"data.seq_length=129", "model.position=rope"}), "");
  EXPECT_EQ(violation({"data.validation_split=0", "eval.interval=0"}), "");
  EXPECT_EQ(violation({"data.sources=[{path: a, validation: b}]", "data.validation_split=0"}), "");
}

TEST(Check, Objective) {
  expect_violations({
      {{"objective.name=masked_lm"},
       "command line: objective.name is masked_lm, which is for model.family encoder, but that is decoder"},
      {{"objective.name=denoising"}, "for model.family encoder_decoder"},
      {{"objective.noise_density=0.3"},
       "command line: objective.noise_density is 0.3, which has no effect with objective.name causal_lm; it is for "
       "span_corruption"},
      {{"objective.masking=bert"}, "has no effect with objective.name causal_lm; it is for masked_lm"},
      {{"objective.rotate_rate=0.5"}, "it is for denoising"},
  });
  const auto of_objective = [](std::vector<std::string> overrides, const std::string& family) {
    overrides.push_back("model.family=" + family);
    const ResolvedConfig r = parse_config(sound, "a.yaml", overrides);
    return error_text([&] { check_objective(r.config, r.origins); });
  };
  const auto masked = [&](std::vector<std::string> overrides) {
    overrides.push_back("objective.name=masked_lm");
    return of_objective(overrides, "encoder");
  };
  EXPECT_EQ(masked({}), "");
  EXPECT_EQ(masked({"objective.masking=bert", "objective.max_predictions=20", "objective.mask_rate=0.3"}), "");
  EXPECT_NE(masked({"objective.max_predictions=20"}).find("no effect with objective.masking roberta"),
            std::string::npos);
  EXPECT_NE(masked({"objective.masking=bernoulli", "objective.masking_unit=span"}).find("use roberta or bert"),
            std::string::npos);
  EXPECT_NE(masked({"objective.random_token_share=0.3"}).find("at most 1 - mask_token_share (0.8)"), std::string::npos);
  EXPECT_NE(masked({"objective.poisson_lambda=3"}).find("it is for denoising"), std::string::npos);
  EXPECT_EQ(of_objective({"objective.name=span_corruption", "objective.mean_span_length=5"}, "encoder_decoder"), "");
  EXPECT_NE(of_objective({"objective.name=span_corruption", "data.document_mask=true"}, "encoder_decoder")
                .find("spans run across documents"),
            std::string::npos);
  EXPECT_EQ(of_objective({"objective.name=denoising", "data.document_mask=true"}, "encoder_decoder"), "");
}

TEST(Check, BatchAndLength) {
  expect_violations({
      {{"train.global_batch_size=10"}, "command line: train.global_batch_size is 10, expected a multiple of"},
      {{"train.max_tokens=1000000"}, "but train.max_steps (100) is given too"},
      {{"train.max_steps=null"}, "expected the length of the run"},
      {{"train.stop_at_step=101"}, "expected at most the length of the run, 100 steps"},
      {{"train.batch_ramp.start=4"}, "which has no effect without train.batch_ramp.tokens"},
      {{"train.batch_ramp={start: 6, tokens: 1000}"}, "expected a multiple of train.micro_batch_size (4) up to"},
      {{"train.batch_ramp={start: 12, tokens: 1000}"}, "up to train.global_batch_size (8)"},
  });
  EXPECT_EQ(violation({"train.max_steps=null", "train.max_tokens=1e6"}), "");
}

TEST(Check, KeysOfAnotherUpdateRuleAreRefused) {
  expect_violations({
      {{"optimizer.adafactor.beta1=0.9"}, "no effect with optimizer.name adamw; it is for adafactor"},
      {{"optimizer.name=adafactor", "optimizer.betas=[0.9, 0.99]"}, "no effect with optimizer.name adafactor"},
      {{"optimizer.name=adafactor", "optimizer.eps=1e-6"}, "it is for adamw"},
      {{"optimizer.name=adafactor", "optimizer.bias_correction=false"}, "it is for adamw"},
      {{"optimizer.least_scale=1e-2"}, "no effect without optimizer.scale_parameter"},
      {{"optimizer.name=adafactor", "optimizer.scale_parameter=false", "optimizer.least_scale=1e-2"}, "no effect"},
      {{"schedule.warmup_steps=0", "schedule.warmup_shape=constant"}, "no effect with schedule.warmup_steps 0"},
  });
  EXPECT_EQ(violation({"optimizer.name=adafactor", "optimizer.adafactor.beta1=0.9", "optimizer.least_scale=1e-2"}), "");
  EXPECT_EQ(violation({"optimizer.scale_parameter=true", "optimizer.least_scale=1e-2"}), "");
  EXPECT_EQ(violation({"optimizer.bias_correction=false"}), "");
}

TEST(Check, Schedule) {
  expect_violations({
      {{"schedule.min_lr=1"}, "expected at most optimizer.lr (0.0006)"},
      {{"schedule.warmup_steps=101"}, "expected at most the length of the run, 100 steps"},
      {{"schedule.name=inverse_sqrt", "schedule.warmup_steps=0"}, "expected at least 1"},
      {{"schedule.decay_steps=10"}, "expected more than schedule.warmup_steps (10)"},
      {{"schedule.name=wsd", "schedule.decay_steps=91"}, "expected at most the 90 steps after the warm-up"},
  });
  EXPECT_EQ(violation({"schedule.name=wsd", "schedule.decay_steps=90"}), "");
}

TEST(Check, Run) {
  expect_violations({
      {{"run.name=.."}, "does not begin with '.'"},
      {{"run.name=''"}, "expected a directory's name"},
      {{"run.dir=''"}, "expected a directory"},
      {{"run.resume=''"}, "expected auto, never"},
      {{"run.init_from=a", "run.resume=b"}, "a run starts from one of them"},
  });
}

TEST(Check, FineTuning) {
  const std::string encoder = "model.family=encoder", labels = "objective.labels=[a, b]";
  expect_violations({
      {{"objective.name=classify", encoder}, "objective.labels is [] (default), expected the names of the labels"},
      {{"objective.name=tag", encoder, "objective.labels=[a, b, a]"}, "expected each label once; 'a' is one too many"},
      {{"objective.name=tag", labels}, "which is for model.family encoder, but that is decoder"},
      {{"objective.name=seq2seq"}, "which is for model.family encoder_decoder"},
      {{"objective.name=instruct", labels}, "which has no effect with objective.name instruct; it is for classify"},
      {{"objective.name=instruct", "data.seq_length=4"}, "expected at least 8 of examples"},
      {{"objective.name=instruct", "data.document_mask=false"}, "examples never see each other"},
      {{"objective.name=instruct", "data.sources=[{path: a, format: llmc}]"}, "examples are read from .jsonl files"},
      {{"objective.name=instruct", "data.decoder_seq_length=32"}, "which has no effect with objective.name instruct"},
      {{"objective.name=classify", encoder, labels, "model.head=token_labels"}, "but objective.name is classify"},
      {{"objective.name=classify", encoder, labels, "model.n_labels=3"}, "objective.labels says how many"},
      {{"model.head=sequence_labels"}, "but objective.name is causal_lm"},
      {{"objective.name=seq2seq", "model.family=encoder_decoder", "data.decoder_seq_length=2000"},
       "expected at most model.max_positions"},
  });
}

TEST(Check, TheHeadFollowsFromTheObjective) {
  const Config c = load_config({}, {"objective.name=tag", "objective.labels=[x, y, z]", "model.family=encoder"}).config;
  EXPECT_EQ(c.model.head, Head::token_labels);
  EXPECT_EQ(c.model.n_labels, 3);
  // As a checkpoint keeps it.
  const Config again = parse_resolved(to_yaml(c), "state");
  EXPECT_EQ(again.model.head, Head::token_labels);
  EXPECT_EQ(again.objective.labels, c.objective.labels);
}

TEST(Check, WhatThisVersionLacksIsSaid) {
  expect_violations({
      {{"precision.fp8.margin=1"}, "which has no effect with precision.mode fp32; it is for fp8"},
      {{"precision.mode=int8_qat", "precision.fp8.amax_history=16"},
       "which has no effect with precision.mode int8_qat"},
      {{"precision.mode=fp8", "parallel.zero_stage=2"}, "expected 0 or 1 with precision.mode fp8"},
      {{"precision.mode=tf32"}, "this build has no CUDA back end; use fp32"},
      {{"precision.mode=fp16", "precision.master=remainder16"}, "which completes bf16 to fp32"},
      {{"precision.master=remainder16"}, "which has no effect with precision.mode fp32"},
      {{"precision.master=none"}, "which has no effect with precision.mode fp32"},
      {{"precision.mode=bf16", "precision.master=none", "optimizer.name=adafactor"},
       "expected fp32 with optimizer.name adafactor"},
      {{"precision.mode=bf16", "precision.master=none", "optimizer.scale_parameter=true"},
       "expected fp32 with optimizer.scale_parameter"},
      {{"precision.moments=int8", "optimizer.name=adafactor"}, "expected fp32 with optimizer.name adafactor"},
      {{"precision.moments=fp8", "optimizer.scale_parameter=true"}, "expected fp32 or bf16 with optimizer.scale"},
      {{"precision.moments=bf16", "optimizer.name=sgd", "optimizer.sgd.momentum=0"}, "there are none"},
      {{"precision.loss_scale.min=1e9"}, "expected at most loss_scale.initial (65536)"},
      {{"optimizer.name=lamb"}, "it has adamw, adam, adafactor, lion, muon and sgd"},
      {{"optimizer.name=lion", "optimizer.eps=1e-6"}, "it is for adamw, adam, muon"},
      {{"optimizer.name=sgd", "optimizer.betas=[0.9, 0.99]"}, "it is for adamw, adam, lion, muon"},
      {{"optimizer.name=sgd", "optimizer.scale_parameter=true"}, "it is for adamw, adam, adafactor"},
      {{"optimizer.sgd.momentum=0.8"}, "which has no effect with optimizer.name adamw; it is for sgd"},
      {{"optimizer.name=sgd", "optimizer.sgd={momentum: 0, nesterov: true}"}, "optimizer.sgd.nesterov"},
  });
}

TEST(Check, OffloadNeedsSomethingToMove) {
  const std::string no_momentum = "optimizer.sgd.momentum=0";
  expect_violations({
      {{"memory.offload_directory=/fast"}, "which has no effect without memory.offload"},
      {{"memory.offload=optimizer", "optimizer.name=sgd", no_momentum}, "optimizer.name sgd keeps nothing"},
      {{"memory.offload=optimizer", "optimizer.name=adafactor", "precision.master=fp32"}, "adafactor keeps nothing of"},
      {{"memory.offload=all", "optimizer.name=sgd", no_momentum, "model.n_layers=3"},
       "no master weights; use activations"},
      {{"memory.offload=activations", "model.n_layers=2"}, "last two layers, and the model has 2; use none"},
      {{"memory.offload=all", "model.n_layers=2"}, "use optimizer"},
  });
  for (const char* more : {"precision.mode=bf16", "optimizer.name=lion", "parallel.zero_stage=3",
                           "memory.offload_directory=/fast", "memory.recompute=full"})
    for (const char* offload : {"optimizer", "activations", "all"})
      EXPECT_EQ(violation({std::string("memory.offload=") + offload, "model.n_layers=3", more}), "");
  EXPECT_EQ(violation({"memory.offload=optimizer", "optimizer.name=adafactor", "precision.mode=bf16"}), "");
  EXPECT_EQ(violation({"memory.offload=activations", "model.n_layers=3", "optimizer.name=sgd", no_momentum}), "");
  EXPECT_EQ(violation({"memory.offload=activations", "model.family=encoder_decoder", "model.n_layers=2",
                       "objective.name=span_corruption"}),
            "")
      << "which has 4";
  const auto on_gpu = [](const std::string& more) {
    const ResolvedConfig r =
        load_config({}, {"memory.offload=all", "memory.offload_directory=/fast", "device=cuda:0", more});
    return error_text([&] { check(r.config, r.origins, {.cuda = true}); });
  };
  EXPECT_EQ(on_gpu("runtime.cuda_graphs=auto").find("memory."), std::string::npos);
  EXPECT_NE(on_gpu("runtime.cuda_graphs=true").find("cuda_graphs is true, expected auto or false with memory.offload"),
            std::string::npos);
}

TEST(Check, GradientsThatAreFusedIntoTheUpdate) {
  const std::vector<std::string> fused = {"precision.gradients=fused", "train.on_nonfinite.policy=rollback",
                                          "train.micro_batch_size=4", "train.global_batch_size=4"};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.begin(), fused.begin(), fused.end());
    return violation(more);
  };
  EXPECT_EQ(with({}), "");
  EXPECT_EQ(with({"precision.mode=bf16", "precision.master=none", "optimizer.name=adamw"}), "");
  EXPECT_EQ(with({"precision.mode=bf16", "optimizer.name=adafactor"}), "");
  EXPECT_NE(with({"precision.mode=fp16"}).find("fp16's loss scale"), std::string::npos);
  EXPECT_NE(
      with({"train.global_batch_size=8"}).find("train.global_batch_size is 8, expected train.micro_batch_size (4)"),
      std::string::npos);
  EXPECT_NE(with({"train.on_nonfinite.policy=skip"}).find("expected rollback or stop"), std::string::npos);
  const ResolvedConfig r = load_config({}, {"precision.mode=bf16", "precision.gradients=bf16"});
  EXPECT_NE(error_text([&] { check_ranks(r.config, 2, r.origins); }).find("exchange gradients in fp32"),
            std::string::npos);
}

TEST(Check, Gradients16Bits) {
  expect_violations({
      {{"precision.gradients=bf16"}, "expected fp32 or fused with precision.mode fp32"},
      {{"precision.mode=bf16", "precision.gradients=bf16", "optimizer.name=adafactor"},
       "expected fp32 or fused with optimizer.name adafactor"},
  });
  EXPECT_EQ(violation({"precision.mode=bf16", "precision.gradients=bf16"}), "");
  for (const std::string mode : {"precision.mode=fp8", "precision.mode=int8_qat"})
    EXPECT_EQ(violation({mode, "precision.gradients=bf16", "precision.master=remainder16"}), "");
}

TEST(Check, ShardsCutTensors) {
  expect_violations({
      {{"parallel.zero_stage=1", "optimizer.name=adafactor"}, "but optimizer.name adafactor looks at whole tensors"},
      {{"parallel.zero_stage=1", "optimizer.name=muon"}, "but optimizer.name muon looks at whole tensors"},
      {{"precision.moments=int8", "optimizer.name=muon"}, "expected fp32 or bf16 with optimizer.name muon"},
      {{"optimizer.muon.iterations=3"}, "which has no effect with optimizer.name adamw; it is for muon"},
      {{"parallel.zero_stage=3", "optimizer.scale_parameter=true"}, "but optimizer.scale_parameter looks at whole"},
  });
  EXPECT_EQ(violation({"parallel.zero_stage=1"}), "");
  EXPECT_EQ(violation({"parallel.zero_stage=3"}), "");
}

TEST(Check, WhatRanksShareOutOfALayerHasAPartForEach) {
  const auto with = [](std::vector<std::string> more, std::string expected) {
    more.insert(more.begin(), "parallel.tensor_parallel_size=4");
    return Case{more, "parallel.tensor_parallel_size is 4, " + expected};
  };
  expect_violations({
      with({"model.n_heads=6", "model.d_model=96"}, "expected a divisor of model.n_heads (6), which ranks share out"),
      with({"model.n_kv_heads=2"}, "expected a divisor of model.n_kv_heads (2)"),
      with({"model.d_ff=1023"}, "expected a divisor of model.d_ff (1023)"),
      with({"optimizer.name=adafactor"}, "but optimizer.name adafactor looks at whole tensors; use adamw"),
      with({"optimizer.scale_parameter=true"}, "but optimizer.scale_parameter looks at whole tensors"),
      with({"precision.moments=int8"}, "but precision.moments int8 has a scale for 256 neighbours"),
      with({"precision.gradients=fused", "train.on_nonfinite.policy=stop", "train.micro_batch_size=8",
            "train.global_batch_size=8"},
           "but precision.gradients is fused"),
      with({"lora.rank=4"}, "but lora.rank adds matrices that are not cut"),
  });
  EXPECT_EQ(violation({"parallel.tensor_parallel_size=4", "parallel.zero_stage=3", "precision.moments=bf16"}), "");
  const auto ranks = [](std::vector<std::string> more, int n) {
    more.insert(more.end(),
                {"parallel.tensor_parallel_size=2", "train.micro_batch_size=2", "train.global_batch_size=12"});
    const ResolvedConfig r = load_config({}, more);
    return error_text([&] { check_ranks(r.config, n, r.origins); });
  };
  EXPECT_EQ(ranks({}, 2), "");
  EXPECT_EQ(ranks({}, 6), "");
  EXPECT_EQ(ranks({"determinism=strict"}, 4), "");
  for (const auto& [n, expected] :
       {std::pair{1, "parallel.tensor_parallel_size is 2, expected a divisor of the number of processes (1)"},
        {3, "expected a divisor of the number of processes (3)"},
        {8, "train.micro_batch_size (2) times the number of processes (8 / parallel.tensor_parallel_size 2)"}})
    EXPECT_NE(ranks({}, n).find(expected), std::string::npos) << ranks({}, n);
  EXPECT_NE(ranks({"determinism=strict"}, 6).find("processes with it that have other data, not 3"), std::string::npos);
}

TEST(Check, TheBatchIsCutAmongRanks) {
  const auto with = [](std::vector<std::string> more, int ranks) {
    more.insert(more.end(), {"train.micro_batch_size=2", "train.global_batch_size=12"});
    const ResolvedConfig r = load_config({}, more);
    return error_text([&] { check_ranks(r.config, ranks, r.origins); });
  };
  EXPECT_EQ(with({}, 3), "");
  EXPECT_EQ(with({}, 6), "");
  EXPECT_EQ(with({"determinism=strict"}, 2), "");
  EXPECT_NE(
      with({}, 4).find("train.global_batch_size is 12, expected a multiple of 8: train.micro_batch_size (2) times "
                       "the number of processes (4)"),
      std::string::npos)
      << with({}, 4);
  EXPECT_NE(with({"determinism=strict"}, 3).find("expected 1, 2, 4 or 8 processes with it, not 3"), std::string::npos);
}

TEST(Check, DevicesDependOnTheBuild) {
  expect_violations({
      {{"device=gpu"}, "command line: device is gpu, expected auto, cpu, cuda or cuda:N"},
      {{"device='cuda:'"}, "expected auto, cpu"},
      {{"device='cuda:x'"}, "expected auto, cpu"},
      {{"device=cuda"}, "this build has no CUDA back end"},
      {{"device='cuda:1'"}, "this build has no CUDA back end"},
      {{"attention.implementation=cudnn"}, "this build has no CUDA back end"},
      {{"runtime.cuda_graphs=true"}, "this build has no CUDA back end"},
  });
  EXPECT_EQ(violation({"device='cuda:1'", "runtime.cuda_graphs=true", "precision.mode=tf32"}, {.cuda = true}), "");
  EXPECT_EQ(violation({"device=cpu", "runtime.cuda_graphs=false"}), "");
  EXPECT_EQ(violation({"precision.mode=fp16", "precision.master=none"}), "");
}

TEST(Check, CudnnsAttentionIsForPlainRows) {
  const std::vector<std::string> plain{"attention.implementation=cudnn", "precision.mode=bf16",
                                       "data.document_mask=false"};
  const auto with = [&](std::vector<std::string> more) {
    std::vector<std::string> keys = plain;
    keys.insert(keys.end(), more.begin(), more.end());
    return violation(keys, {.cuda = true});
  };
  EXPECT_EQ(with({}), "");
  EXPECT_EQ(with({"data.document_mask=auto", "data.pack=false"}), "");
  for (const auto& [keys, expected] : std::vector<std::pair<std::vector<std::string>, std::string>>{
           {{"device=cpu"}, "device is cpu; use native"},
           {{"precision.mode=fp32"}, "precision.mode is fp32"},
           {{"model.position=alibi"}, "the bias of model.position alibi"},
           {{"model.window=64"}, "model.window"},
           {{"model.attention_dropout=0.1"}, "model.attention_dropout"},
           {{"model.d_model=720", "model.n_heads=12"}, "heads are 60 wide"},
           {{"data.document_mask=auto"}, "rows hold several documents"}})
    EXPECT_NE(with(keys).find(expected), std::string::npos) << with(keys);
}

TEST(Check, TheModelAloneNeedsNoData) {
  const ResolvedConfig r = load_config({}, {"model.preset=gpt2"});
  EXPECT_NO_THROW(check_model(r.config, r.origins));
  EXPECT_THROW(check(r.config, r.origins), ConfigError);
}

}  // namespace
}  // namespace mixtape
