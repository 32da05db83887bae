// The recipes under configs/ as their heads say to use them, at a tiny size: validation falls into a band that was
// measured, and a run in two pieces has the bits of one in a piece.
#include <gtest/gtest.h>

#include <algorithm>

#include <fmt/format.h>

#include "tests/end_to_end/process.h"

namespace mixtape {
namespace {

// Of a command that must succeed.
std::string output_of(const Workspace& space, const std::vector<std::string>& arguments) {
  const ProcessResult r = space.mixtape(arguments);
  EXPECT_EQ(r.exit_code, 0) << r.err;
  return r.out;
}

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
    for (const char* word : {"model.d_model=32", "model.n_heads=2", "model.vocab_size=512", "data.seq_length=32",
                             "data.validation_split=0.1", "train.micro_batch_size=8", "train.global_batch_size=16",
                             "train.max_steps=80", "optimizer.lr=1e-2", "schedule.warmup_steps=8", "eval.interval=80",
                             "eval.tokens=2000", "checkpoint.interval=20", "determinism=strict"})
      words.push_back(word);
    words.insert(words.end(), GetParam().size.begin(), GetParam().size.end());
    return words;
  }
  std::string run(const std::vector<std::string>& arguments) const { return output_of(space, arguments); }
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

// The recipe of translation, on pairs that a small model can learn in seconds: numbers and their names.
TEST(TransformerBase, LearnsToTranslate) {
  const Workspace space;
  const auto run = [&](const std::vector<std::string>& arguments) { return output_of(space, arguments); };
  const std::vector<std::string> names = {"null", "eins", "zwei", "drei", "vier", "acht"};
  std::string pairs, text;
  for (int i = 0; i < 216; ++i) {
    const std::string source = fmt::format("{} {} {}", i / 36, i / 6 % 6, i % 6);
    const std::string target = fmt::format("{} {} {}", names[i / 36], names[i / 6 % 6], names[i % 6]);
    pairs += fmt::format("{{\"source\": \"{}\", \"target\": \"{}\"}}\n", source, target);
    text += source + "\n" + target + "\n";
  }
  space.write("data/translation/pairs.jsonl", pairs);
  space.write("data/translation/text.txt", text);
  run({"tokenizer", "train", "--like", "bart", "--vocab-size", "300", "-o", "data/translation",
       "data/translation/text.txt"});
  run({"train", MIXTAPE_SOURCE "/configs/transformer-base.yaml", "model.n_layers=1", "model.n_decoder_layers=1",
       "model.d_model=32", "model.n_heads=2", "model.d_ff=64", "model.vocab_size=300", "data.seq_length=32",
       "data.validation_split=0.1", "train.micro_batch_size=8", "train.global_batch_size=8", "train.max_steps=200",
       "optimizer.lr=1e-2", "schedule.warmup_steps=20", "eval.interval=200", "checkpoint.interval=200"});
  const std::string metrics = space.read("runs/transformer-base/metrics.jsonl");
  const size_t eval = metrics.rfind("\"event\":\"eval\"");
  ASSERT_NE(eval, std::string::npos);
  EXPECT_LT(std::stod(metrics.substr(metrics.find("\"loss\":", eval) + 7, 12)), 0.4);
  EXPECT_EQ(run({"generate", "runs/transformer-base", "--prompt", "2 5 3", "--greedy", "-q", "-n", "12"}),
            "zwei acht drei\n");
}

// A model of general text goes on with a mixture: it gains on the domain, and validation shows both.
TEST(DomainMix, GainsOnTheDomainAndShowsBoth) {
  const Workspace space;
  const auto run = [&](const std::vector<std::string>& arguments) { return output_of(space, arguments); };
  space.write("general.txt", sample_text(300));
  std::string domain;
  for (int i = 0; i < 300; ++i)
    domain += "rate " + std::to_string(i % 7) + " up; bond " + std::to_string(i % 5) + " down; cash flat.\n%\n";
  space.write("domain.txt", domain);
  run({"tokenizer", "train", "general.txt", "domain.txt", "--vocab-size", "400", "-o",
       "data/quickstart/tokenizer.json"});
  for (const auto& [text, shards] : {std::pair{"general.txt", "fortunes"}, {"domain.txt", "gcide"}})
    run({"data", "prepare", "-t", "data/quickstart/tokenizer.json", "--separator", "%", "-o",
         std::string("data/quickstart/") + shards, text});
  const auto train = [&](const std::string& recipe, const std::string& steps) {
    return run({"train", MIXTAPE_SOURCE "/configs/" + recipe + ".yaml", "model.n_layers=2", "model.d_model=32",
                "model.n_heads=2", "model.vocab_size=400", "data.seq_length=32", "data.validation_split=0.1",
                "eval.tokens=2000", "eval.interval=20", "train.max_steps=" + steps, "schedule.warmup_steps=5",
                "optimizer.lr=1e-2"});
  };
  train("general", "60");
  const auto loss = [&](const std::string& model, const std::string& shards) {
    const std::string out = run({"eval", model, "data/quickstart/" + shards, "--seq-length", "32", "--json"});
    return std::stod(out.substr(out.find("\"loss\":") + 7));
  };
  const double before = loss("runs/general", "gcide");
  train("domain-mix", "40");
  EXPECT_LT(loss("runs/domain-mix", "gcide"), before - 1);
  const std::string metrics = space.read("runs/domain-mix/metrics.jsonl");
  const size_t at = metrics.rfind("\"event\":\"eval\""), sources = metrics.find("\"sources\":{", at);
  ASSERT_NE(sources, std::string::npos) << metrics.substr(at);
  const auto value = [&](const std::string& key, size_t from) {
    return std::stod(metrics.substr(metrics.find("\"" + key + "\":", from) + key.size() + 3, 12));
  };
  const double of_domain = value("domain", sources), of_general = value("general", sources),
               of_both = value("loss", at);
  EXPECT_GT(of_both, std::min(of_domain, of_general));
  EXPECT_LT(of_both, std::max(of_domain, of_general));
  EXPECT_NE(space.read("runs/domain-mix/report.html").find("domain, validation"), std::string::npos);
}

// The bytes of a parameter are no help when a test fails.
void PrintTo(const Recipe& recipe, std::ostream* out) { *out << recipe.name; }

std::string name_of(const testing::TestParamInfo<Recipe>& info) {
  std::string name = info.param.name;
  std::replace_if(
      name.begin(), name.end(), [](unsigned char c) { return !std::isalnum(c); }, '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(All, Recipes,
                         testing::Values(Recipe{"gpt2-124m", "gpt2", "gpt2", one_stack, 1.0},
                                         Recipe{"bert-base", "bert", "bert", one_stack, 3.12},
                                         Recipe{"roberta-base", "roberta", "roberta", one_stack, 3.36},
                                         Recipe{"t5-small", "t5", "t5", two_stacks, 2.61},
                                         Recipe{"t5-v1.1-base", "t5", "t5", two_stacks, 2.35},
                                         Recipe{"bart-base", "bart", "bart", two_stacks, 1.12},
                                         Recipe{"bloom-560m", "bloom", "gpt2", one_stack, 1.03},
                                         Recipe{"llama-7b", "llama", "gpt2", one_stack, 0.85}),
                         name_of);

}  // namespace
}  // namespace mixtape
