// `mixtape bench ops` on a tiny_bench model: what it prints, never how fast.
#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "tests/end_to_end/process.h"

namespace mixtape {
namespace {

const std::vector<std::string> tiny_bench{"bench",
                                          "ops",
                                          "model.n_layers=1",
                                          "model.d_model=32",
                                          "model.n_heads=4",
                                          "model.vocab_size=300",
                                          "train.micro_batch_size=2",
                                          "data.seq_length=8",
                                          "--samples",
                                          "1"};

std::vector<std::string> tiny_with(const std::vector<std::string>& more) {
  std::vector<std::string> words = tiny_bench;
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

nlohmann::json bench(const Workspace& space, const std::vector<std::string>& more) {
  std::vector<std::string> words = tiny_with({"--json"});
  words.insert(words.end(), more.begin(), more.end());
  const ProcessResult r = space.mixtape(words);
  EXPECT_EQ(r.exit_code, 0) << r.err;
  return nlohmann::json::parse(r.out);
}

std::set<std::string> operations_in(const nlohmann::json& result) {
  std::set<std::string> names;
  for (const auto& line : result["operations"]) names.insert(line["operation"].get<std::string>());
  return names;
}

TEST(BenchOps, TimesEveryOperationBesideTheLimits) {
  const Workspace space;
  const nlohmann::json result = bench(space, {});
  EXPECT_EQ(operations_in(result), (std::set<std::string>{"abs_max",
                                                          "activation",
                                                          "adafactor",
                                                          "adamw",
                                                          "add",
                                                          "attention",
                                                          "cast",
                                                          "convert",
                                                          "cross_entropy",
                                                          "dropout",
                                                          "cross_attention",
                                                          "embedding",
                                                          "gather_rows",
                                                          "gradient_norm",
                                                          "gated_activation",
                                                          "linear",
                                                          "linear_rows",
                                                          "linear_int8",
                                                          "lion",
                                                          "norm",
                                                          "linear_activation",
                                                          "parameter_scales",
                                                          "quantised_linear",
                                                          "residual_norm",
                                                          "rope",
                                                          "sgd"}));
  EXPECT_EQ(result["dtype"], "fp32");
  for (const char* limit : {"fma", "fma_one_thread", "read", "copy"}) EXPECT_GT(result["limits"][limit], 0) << limit;
  std::set<std::string> seen;
  for (const auto& line : result["operations"]) {
    const std::string what = line["operation"].get<std::string>() + " " + line["shape"].get<std::string>() + " " +
                             line["pass"].get<std::string>();
    EXPECT_TRUE(seen.insert(what).second) << what << " twice";
    EXPECT_GT(line["seconds"], 0) << what;
    EXPECT_LE(line["least_seconds"], line["seconds"]) << what;
    EXPECT_GE(line["most_seconds"], line["seconds"]) << what;
    EXPECT_GT(line["share_of_limit"], 0) << what;
    EXPECT_GT(line["bytes"], 0) << what;
    EXPECT_GE(line["samples"].get<int>() + line["dropped"].get<int>(), 1) << what;
    // A sample that does not count is said to be dropped; with none left, so is that.
    EXPECT_EQ(line["disturbed"].get<bool>(), line["samples"].get<int>() < line["dropped"].get<int>()) << what;
  }
  for (const std::string name : {"norm", "rope", "activation", "gated_activation", "dropout", "attention", "cast"}) {
    bool backward = false;
    for (const auto& line : result["operations"]) backward |= line["operation"] == name && line["pass"] == "backward";
    EXPECT_TRUE(backward) << name;
  }
}

TEST(BenchOps, TakesNamesOfOperationsAndAType) {
  const Workspace space;
  const nlohmann::json result = bench(space, {"precision.mode=bf16", "--only", "norm", "adamw"});
  EXPECT_EQ(operations_in(result), (std::set<std::string>{"adamw", "norm"}));
  EXPECT_EQ(result["dtype"], "bf16");
  // With a master 4 reads and 3 writes of float32, and the rounded weight. Of 8 bits a moment is read and written with
  // its share of a scale.
  const std::map<std::string, double> bytes_of = {
      {"bf16, fp32 master", 30},
      {"fp32", 28},
      {"bf16, remainder, bf16 gradients and moments", 18},
      {"bf16, no master, bf16 gradients, int8 moments", 3 * 2 + 4 * (1 + 4.0 / 256)},
  };
  size_t seen = 0;
  for (const auto& line : result["operations"]) {
    const std::string shape = line["shape"];
    const auto known = bytes_of.find(shape.substr(std::min(shape.size(), shape.find(", ") + 2)));
    if (line["operation"] != "adamw" || known == bytes_of.end()) continue;
    ++seen;
    EXPECT_NEAR(line["bytes"].get<double>() / std::stod(shape), known->second, 1e-9) << shape;
  }
  EXPECT_EQ(seen, bytes_of.size());

  const ProcessResult text = space.mixtape(tiny_with({"--only", "dropout"}));
  EXPECT_EQ(text.exit_code, 0) << text.err;
  EXPECT_NE(text.out.find("dropout            16 x 32, p = 0.1"), std::string::npos) << text.out;
  EXPECT_NE(text.out.find("GB/s"), std::string::npos) << text.out;
  EXPECT_EQ(text.out.find("rope"), std::string::npos) << text.out;
}

TEST(BenchOps, RefusesAnUnknownOperationWithTheChoices) {
  const Workspace space;
  const ProcessResult r = space.mixtape(tiny_with({"--only", "norm", "softplus"}));
  EXPECT_EQ(r.exit_code, 2);
  EXPECT_NE(r.err.find("--only: 'softplus' is no operation; expected abs_max, activation, adafactor, adamw"),
            std::string::npos)
      << r.err;
  EXPECT_TRUE(r.out.empty()) << r.out;
}

// Timed by the device's own marks, beside limits that were measured there.
TEST(BenchOps, OnAGpu) {
  const Workspace space;
  const ProcessResult r = space.mixtape_emulated(
      tiny_with({"--device", "cuda", "precision.mode=bf16", "--only", "linear", "norm", "attention", "--json"}));
  ASSERT_EQ(r.exit_code, 0) << r.err;
  const nlohmann::json result = nlohmann::json::parse(r.out);
  EXPECT_EQ(operations_in(result), (std::set<std::string>{"attention", "linear", "norm"}));
  EXPECT_EQ(result["dtype"], "bf16");
  for (const char* limit : {"fma", "read", "copy"}) EXPECT_GT(result["limits"][limit], 0) << limit;
  for (const auto& line : result["operations"]) {
    EXPECT_GT(line["seconds"], 0) << line["operation"];
    EXPECT_GT(line["share_of_limit"], 0) << line["operation"];
    EXPECT_EQ(line["dropped"], 0) << "a device of one's own is not disturbed";
  }
}

TEST(BenchTrain, OnAGpu) {
  const Workspace space;
  std::vector<std::string> words{"bench", "train", "--device", "cuda", "--steps", "2", "--json"};
  words.insert(words.end(), tiny_bench.begin() + 2, tiny_bench.end() - 2);
  const ProcessResult r = space.mixtape_emulated(words);
  ASSERT_EQ(r.exit_code, 0) << r.err;
  const nlohmann::json result = nlohmann::json::parse(r.out);
  EXPECT_GT(result["tokens_per_second"], 0);
  EXPECT_EQ(result["mfu"], 0) << "of a device whose peak nobody knows";
}

}  // namespace
}  // namespace mixtape
