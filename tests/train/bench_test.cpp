// What benchmarks claim: the work of operations, which samples count, and that no operation is left out.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <regex>
#include <set>

#include "core/base/clock.h"
#include "core/cpu/backend.h"
#include "core/model/transformer.h"
#include "train/bench/model_work.h"
#include "train/bench/operation_cases.h"
#include "train/bench/peaks.h"
#include "train/bench/steady.h"
#include "train/bench/training.h"
#include "train/config/config.h"

namespace mixtape {
namespace {

std::set<std::string> benched_operations() {
  std::set<std::string> names;
  for (const OperationCase& c : operation_cases({.model = {}, .sequences = 1, .length = 16, .parameters = 1000}))
    names.insert(c.operation);
  return names;
}

// The names that operations give themselves, in core/ops.
std::set<std::string> tape_operations() {
  static const std::regex name(R"rx(^\s*\.name = "(\w+)",$)rx");
  std::set<std::string> names;
  std::smatch match;
  for (const auto& entry : std::filesystem::directory_iterator(std::filesystem::path(MIXTAPE_SOURCE) / "core/ops")) {
    std::ifstream file(entry.path());
    for (std::string line; std::getline(file, line);)
      if (std::regex_match(line, match, name)) names.insert(match[1]);
  }
  return names;
}

TEST(BenchOperations, HaveEveryOperation) {
  const std::set<std::string> operations = tape_operations(), benched = benched_operations();
  EXPECT_GE(operations.size(), 13u);
  for (const std::string& name : operations)
    EXPECT_TRUE(benched.contains(name)) << name << " has no case in train/bench";
  // And what is not on the tape.
  for (const std::string name : {"gradient_norm", "adamw", "lion", "sgd", "adafactor", "parameter_scales",
                                 "linear_rows", "linear_int8", "convert", "abs_max"})
    EXPECT_TRUE(benched.contains(name)) << name;
}

// Matrix products by operation add up to the model's own count, which knows nothing of operations.
TEST(BenchWork, ProductsAddUpToTheModelsFlops) {
  for (const std::string preset :
       {"gpt2", "llama-3-8b", "bloom-560m", "bert-base", "t5-small", "t5-v1.1-small", "bart-base"}) {
    const ModelSpec spec = parse_config("model: {preset: " + preset + "}", "test.yaml").config.model;
    const int64_t decoder = spec.family == Family::encoder_decoder ? 11 : 0;
    const SequenceLengths lengths{.main = 32, .decoder = decoder, .targets = 5};
    double flops = 0;
    for (const char* operation : {"linear", "linear_activation", "cross_entropy"})
      for (const bool backward : {false, true}) flops += model_work(spec, {3, lengths, 4}, operation, backward).flops;
    EXPECT_DOUBLE_EQ(flops, 3 * Transformer(spec, 32, decoder).product_flops(lengths)) << preset;
    if (spec.mlm_head) continue;  // whose own layer is not rounded
    double rounded = 0;
    for (const char* operation : {"quantised_linear", "cross_entropy"})
      for (const bool backward : {false, true}) rounded += model_work(spec, {3, lengths, 4}, operation, backward).flops;
    EXPECT_DOUBLE_EQ(rounded, flops) << preset;
  }
}

// Backward makes the scores again, which a model's count leaves out: 14 for 12.
TEST(BenchWork, AttentionAddsUpToTheModelsFlops) {
  for (const std::string preset : {"gpt2", "bert-base", "t5-small"}) {
    const ModelSpec spec = parse_config("model: {preset: " + preset + "}", "test.yaml").config.model;
    const int64_t decoder = spec.family == Family::encoder_decoder ? 11 : 0;
    const SequenceLengths lengths{.main = 32, .decoder = decoder};
    double flops = 0;
    for (const char* operation : {"attention", "cross_attention"})
      for (const bool backward : {false, true}) flops += model_work(spec, {3, lengths, 4}, operation, backward).flops;
    const Transformer model(spec, 32, decoder);
    EXPECT_DOUBLE_EQ(flops * 12 / 14, 3 * model.attention_flops(lengths)) << preset;
    EXPECT_DOUBLE_EQ(model.flops_per_token(lengths) * 32,
                     model.product_flops(lengths) + model.attention_flops(lengths));
  }
}

TEST(BenchWork, AttentionCountsTheKeysThatAreSeen) {
  for (const int64_t length : {64, 100})
    for (const int64_t window : {0, 10, 64, 200}) {
      double causal = 0;
      for (int64_t i = 0; i < length; ++i) causal += double(window > 0 ? std::min(window, i + 1) : i + 1);
      // Half of the diagonal is left out.
      EXPECT_NEAR(keys_seen(length, true, window), causal / double(length), 0.5 + 1e-9) << length << " " << window;
    }
  EXPECT_EQ(keys_seen(64, false, 0), 64);
}

TEST(BenchWork, TheSlowerOfArithmeticAndMemoryIsTheLimit) {
  const Limits limits{.fma = 100, .read = 10, .copy = 16};
  EXPECT_DOUBLE_EQ(least_seconds({.flops = 1000, .read = 10}, limits), 10);
  EXPECT_TRUE(bound_by_arithmetic({.flops = 1000, .read = 10}, limits));
  EXPECT_DOUBLE_EQ(least_seconds({.read = 80, .written = 80}, limits), 10);
  // Nearly all is read: the rate at which both together move is out of reach.
  EXPECT_DOUBLE_EQ(least_seconds({.flops = 10, .read = 100, .written = 1}, limits), 10);
  EXPECT_FALSE(bound_by_arithmetic({.flops = 10, .read = 100, .written = 1}, limits));
}

TEST(BenchPeaks, EveryCardThatWasPromised) {
  const auto half = [](const char* name) {
    const DevicePeak* peak = peak_of(name);
    return peak ? peak->half / 1e12 : 0;
  };
  EXPECT_EQ(half("cuda:0 (NVIDIA A100-SXM4-80GB)"), 312);
  EXPECT_EQ(half("NVIDIA A100-PCIE-40GB"), 312);
  EXPECT_EQ(half("cuda:3 (NVIDIA H100 80GB HBM3)"), 989);
  EXPECT_EQ(half("NVIDIA H100 PCIe"), 756);
  EXPECT_EQ(half("cuda:0 (NVIDIA H200)"), 989);
  EXPECT_EQ(half("NVIDIA L40S"), 362);
  EXPECT_EQ(half("NVIDIA GeForce RTX 4090"), 165.2);
  EXPECT_EQ(half("NVIDIA GeForce RTX 5090"), 209.5);
  EXPECT_EQ(half("NVIDIA B200"), 2250);
  // Others of similar names are slower, and the CPU has no such peak.
  for (const char* name : {"NVIDIA GeForce RTX 4090 D", "NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA GB200",
                           "NVIDIA L40", "cpu", "cuda, emulated", ""})
    EXPECT_EQ(peak_of(name), nullptr) << name;
  const DevicePeak& h100 = *peak_of("NVIDIA H100 80GB HBM3");
  EXPECT_EQ(peak_flops(h100, PrecisionMode::bf16), peak_flops(h100, PrecisionMode::fp16));
  EXPECT_EQ(peak_flops(h100, PrecisionMode::tf32), 494.5e12);
  EXPECT_EQ(peak_flops(h100, PrecisionMode::fp32), 67e12);
}

// By hand: GPT-2 124M at 1024 tokens, where nanoGPT and llm.c count the same.
TEST(BenchPeaks, UtilisationIsCountedAsPublished) {
  const ModelSpec gpt2 = parse_config("model: {preset: gpt2}", "test.yaml").config.model;
  const int64_t parameters = Transformer(gpt2, 1024).layout().parameter_count();
  EXPECT_EQ(parameters, 124439808);
  const double flops = published_flops_per_token(gpt2, parameters, 1024);
  EXPECT_DOUBLE_EQ(flops, 6.0 * 124439808 + 12.0 * 12 * 12 * 64 * 1024);
  TrainingBench bench{.tokens = 524288, .published_flops = flops * 524288, .peak_flops = 989e12};
  bench.step.median = 524288 / 0.58e6;  // tokens over tokens a second
  EXPECT_NEAR(bench.mfu(), 0.504, 0.001);
  EXPECT_EQ(TrainingBench{}.mfu(), 0);
  const ModelSpec t5 = parse_config("model: {preset: t5-small}", "test.yaml").config.model;
  EXPECT_EQ(published_flops_per_token(t5, 60000000, 512), 0);
}

// An operation that runs inside of another has its own time, and the other what is left.
TEST(BenchProfile, TimesOperationsWithoutThoseInside) {
  CpuBackend backend;
  Profile profile(backend);
  const auto wait = [](double seconds) {
    for (const double start = now_seconds(); now_seconds() - start < seconds;) {
    }
  };
  profile.begin("outer", false);
  wait(0.002);
  profile.begin("inner", true);
  wait(0.004);
  profile.end("inner", true);
  profile.end("outer", false);
  const auto rows = profile.rows();
  EXPECT_EQ(rows.size(), 2u);
  EXPECT_GE(rows.at({"inner", true}).seconds, 0.004);
  EXPECT_GE(rows.at({"outer", false}).seconds, 0.002);
  EXPECT_NEAR(rows.at({"inner", true}).seconds + rows.at({"outer", false}).seconds, profile.total_seconds(), 1e-9);
  const std::string trace = profile.trace_json();
  EXPECT_NE(trace.find("\"name\":\"inner\""), std::string::npos) << trace;
  profile.clear();
  EXPECT_TRUE(profile.rows().empty());
}

TEST(SteadyTiming, SamplesBesideASlowProbeAreDropped) {
  const std::vector<TimeSample> samples{{1.0, 100, 100}, {5.0, 84, 100}, {2.0, 90, 86}, {9.0, 100, 50}, {3.0, 99, 99}};
  const Timing t = summarise(samples, 100);
  EXPECT_EQ(t.counted, 3);
  EXPECT_EQ(t.dropped, 2);
  EXPECT_FALSE(t.disturbed);
  EXPECT_EQ(t.median, 2);
  EXPECT_EQ(t.least, 1);
  EXPECT_EQ(t.most, 3);
}

TEST(SteadyTiming, ADisturbedMachineIsCalledThat) {
  EXPECT_TRUE(summarise({{1, 100, 100}, {2, 50, 100}, {3, 50, 100}}, 100).disturbed);
  const Timing none = summarise({{1, 50, 50}, {3, 50, 50}}, 100);
  EXPECT_TRUE(none.disturbed);
  EXPECT_EQ(none.counted, 0);
  EXPECT_EQ(none.median, 2);  // of all, for want of better
}

}  // namespace
}  // namespace mixtape
