// A tiny run that mpirun may start, and its processes.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <regex>
#include <string>
#include <vector>

#include "core/base/error.h"
#include "tests/end_to_end/process.h"

namespace mixtape {

// About 240,000 parameters: four chunks of 64 Ki, so that each of four ranks has a shard.
inline const char* const distributed_config = R"(
run: {name: tiny}
model: {n_layers: 1, d_model: 128, n_heads: 4, vocab_size: 257, max_positions: 64, dropout: 0.1, attention_dropout: 0.1}
data:
  tokenizer: bytes
  sources: [{name: text, path: shards}]
  validation_split: 0.1
  seq_length: 32
train: {micro_batch_size: 1, global_batch_size: 8, max_steps: 12}
optimizer: {lr: 3.0e-3}
precision: {mode: bf16}
schedule: {warmup_steps: 3}
eval: {interval: 6, tokens: 500}
checkpoint: {interval: 4, keep_last: 9}
logging: {interval: 1, sample_interval: 6, sample_tokens: 8, sample_prompts: ["The "]}
determinism: strict
runtime: {threads: 1}
)";

inline bool has_mpirun() { return std::system("mpirun --version >/dev/null 2>&1") == 0; }

class Distributed : public testing::Test {
 protected:
  void SetUp() override {
    if (!has_mpirun()) GTEST_SKIP() << "there is no mpirun here; scripts/install test installs it";
    space.write("text.txt", sample_text(120));
    space.write("tiny.yaml", distributed_config);
    const ProcessResult r = space.mixtape(
        {"data", "prepare", "--tokenizer", "bytes", "--separator", "%", "--output", "shards", "text.txt"});
    ASSERT_EQ(r.exit_code, 0) << r.err;
  }
  static std::vector<std::string> words(const std::string& run, const std::vector<std::string>& more) {
    std::vector<std::string> arguments{"train", "tiny.yaml", "run.name=" + run};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }
  // One rank is one process without MPI.
  ProcessResult train(int ranks, const std::string& run, const std::vector<std::string>& more = {}) const {
    return ranks == 1 ? space.mixtape(words(run, more)) : space.mpirun(ranks, words(run, more));
  }
  std::string state_at(const std::string& run, int step) const {
    const std::string at = fmt::format("runs/{}/checkpoints/step-{:08}/", run, step);
    const std::string weights = space.read(at + "model.safetensors");
    EXPECT_FALSE(weights.empty()) << run << " has no checkpoint of step " << step;
    return weights + space.read(at + "optimizer.safetensors");
  }
  // Of all steps and validations, as text: every digit.
  std::vector<std::string> losses(const std::string& run) const {
    const std::string metrics = space.read("runs/" + run + "/metrics.jsonl");
    static const std::regex loss("\"event\":\"(step|eval)\".*?\"loss\":([^,]*),");
    std::vector<std::string> found;
    for (std::sregex_iterator at(metrics.begin(), metrics.end(), loss), end; at != end; ++at)
      found.push_back((*at)[1].str() + " " + (*at)[2].str());
    return found;
  }
  Workspace space;
};

// The processes that mpirun has started.
inline std::vector<int> children_of(int parent) {
  std::vector<int> found;
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    std::ifstream stat(entry.path() / "stat");
    int pid = 0, ppid = 0;
    std::string name, state;
    if (stat >> pid >> name >> state >> ppid && ppid == parent && name == "(mixtape)") found.push_back(pid);
  }
  return found;
}

inline std::string variable_of(int pid, const std::string& name) {
  std::ifstream in(fmt::format("/proc/{}/environ", pid));
  for (std::string line; std::getline(in, line, '\0');)
    if (line.starts_with(name + "=")) return line.substr(name.size() + 1);
  return "";
}

inline int process_of_rank(int mpirun, int rank) {
  for (const int pid : children_of(mpirun))
    if (variable_of(pid, "OMPI_COMM_WORLD_RANK") == std::to_string(rank)) return pid;
  return 0;
}

}  // namespace mixtape
