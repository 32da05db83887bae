// The recipes under configs/ as their heads say to use them, at a tiny size: validation falls into a band that was
// measured, and a run in two pieces has the bits of one in a piece.
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/end_to_end/process.h"

namespace mixtape {
namespace {

struct Recipe {
  const char* name;
  const char* data;       // the folder in data/, and
  const char* tokenizer;  // whose tokenizer it begins with
  std::vector<std::string> size;
  double loss;  // of validation after 80 steps, measured; other processors round differently
};

const std::vector<std::string> one_stack = {"model.n_layers=2"};
const std::vector<std::string> two_stacks = {"model.n_layers=1", "model.n_decoder_layers=1"};

class Recipes : public testing::TestWithParam<Recipe> {
 protected:
  std::vector<std::string> command(const std::string& run) const {
    std::vector<std::string> words = {"train", std::string(MIXTAPE_SOURCE "/configs/") + GetParam().name + ".yaml",
                                      "run.name=" + run};
    for (const char* word :
         {"model.d_model=32", "model.n_heads=2", "model.vocab_size=512", "data.seq_length=32", "data.validation_split=0.1",
          "train.micro_batch_size=8", "train.global_batch_size=16", "train.max_steps=80", "optimizer.lr=1e-2",
          "schedule.warmup_steps=8", "eval.interval=80", "eval.tokens=2000", "checkpoint.interval=20", "determinism=strict"})
      words.push_back(word);
    words.insert(words.end(), GetParam().size.begin(), GetParam().size.end());
    return words;
  }
  std::string run(std::vector<std::string> arguments) const {
    const ProcessResult r = space.mixtape(arguments);
    EXPECT_EQ(r.exit_code, 0) << r.err;
    return r.out;
  }
  std::string weights(const std::string& name) const {
    return space.read("runs/" + name + "/checkpoints/step-00000080/model.safetensors");
  }
  Workspace space;
};

TEST_P(Recipes, LearnAndResume) {
  space.write("text.txt", sample_text(400));
  run({"data", "prepare", "--new-tokenizer", GetParam().tokenizer, "--vocab-size", "512", "--separator", "%", "-o",
       std::string("data/") + GetParam().data, "text.txt"});
  run(command("straight"));
  const std::string metrics = space.read("runs/straight/metrics.jsonl");
  const size_t eval = metrics.rfind("\"event\":\"eval\"");
  ASSERT_NE(eval, std::string::npos);
  EXPECT_NEAR(std::stod(metrics.substr(metrics.find("\"loss\":", eval) + 7, 12)), GetParam().loss, 0.15);

  std::vector<std::string> first = command("pieces");
  first.push_back("train.stop_at_step=31");
  run(first);
  run(command("pieces"));
  EXPECT_TRUE(weights("pieces") == weights("straight")) << "a resumed run has other bits";
}

std::string name_of(const testing::TestParamInfo<Recipe>& info) {
  std::string name = info.param.name;
  std::replace_if(name.begin(), name.end(), [](unsigned char c) { return !std::isalnum(c); }, '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(All, Recipes,
                         testing::Values(Recipe{"bert-base", "bert", "bert", one_stack, 0},
                                         Recipe{"roberta-base", "roberta", "roberta", one_stack, 0},
                                         Recipe{"t5-small", "t5", "t5", two_stacks, 0},
                                         Recipe{"t5-v1.1-base", "t5", "t5", two_stacks, 0},
                                         Recipe{"bart-base", "bart", "bart", two_stacks, 0},
                                         Recipe{"bloom-560m", "bloom", "gpt2", one_stack, 0},
                                         Recipe{"llama-7b", "llama", "gpt2", one_stack, 0}),
                         name_of);

}  // namespace
}  // namespace mixtape
