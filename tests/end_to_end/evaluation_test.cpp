// What finished models are asked: masked tokens, multiple choice, spans, neighbours of words.
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/end_to_end/process.h"

namespace mixtape {
namespace {

// Two facts, each in many words' company, so that a tiny model has only them to learn.
std::string facts() {
  const char* who[] = {"children", "sailors", "poets", "farmers", "nurses", "clowns"};
  std::string text;
  for (int i = 0; i < 240; ++i) {
    const std::string sky = std::string(who[i % 6]) + " say that the sky is blue. ";
    const std::string grass = std::string(who[(i / 2) % 6]) + " say that the grass is green. ";
    text += (i % 4 < 2 ? sky + grass : grass + sky) + "\n%\n";
  }
  return text;
}

class Asked : public testing::Test {
 protected:
  void SetUp() override { space.write("text.txt", facts()); }
  void prepare(const std::string& tokenizer) const {
    run({"data", "prepare", "text.txt", "-t", tokenizer, "--separator", "%", "-o", "shards", "--overwrite"});
    space.write("tiny.yaml", R"(
run: {name: tiny}
model: {n_layers: 2, d_model: 48, n_heads: 3, max_positions: 64}
data: {tokenizer: )" + tokenizer +
                                 R"(, sources: [{name: text, path: shards}], validation_split: 0.1, seq_length: 48}
train: {micro_batch_size: 8, global_batch_size: 8, max_steps: 400}
optimizer: {lr: 1.0e-2}
schedule: {warmup_steps: 10}
eval: {interval: 0}
logging: {sample_interval: 0}
determinism: strict
)");
  }
  void pieces() const {
    run({"tokenizer", "train", "text.txt", "-o", "t.json", "--vocab-size", "300", "--special", "<s>", "<pad>", "</s>",
         "<mask>", "<extra_id_0>", "<extra_id_1>", "<extra_id_2>", "<extra_id_3>"});
    prepare("t.json");
  }
  std::string run(const std::vector<std::string>& arguments) const {
    const ProcessResult r = space.mixtape(arguments);
    EXPECT_EQ(r.exit_code, 0) << r.err;
    return r.out;
  }
  nlohmann::json json(const std::vector<std::string>& arguments) const {
    return nlohmann::json::parse(run(arguments), nullptr, false);
  }
  Workspace space;
};

TEST_F(Asked, AnEncoderFillsMasksAndCountsThem) {
  pieces();
  run({"train", "tiny.yaml", "objective.name=masked_lm", "model.family=encoder", "model.vocab_size=300"});
  const auto result = json({"eval", "runs/tiny", "shards", "--seq-length", "48", "--json"});
  // All but the first word of a sentence follows from its neighbours.
  EXPECT_GT(result["accuracy"].get<double>(), 0.6) << result;
  EXPECT_LE(result["accuracy"].get<double>(), 1.0);
  const auto again = json({"eval", "runs/tiny", "shards", "--seq-length", "48", "--json", "--batch-size", "3"});
  EXPECT_NEAR(again["loss"].get<double>(), result["loss"].get<double>(), 1e-4);
  EXPECT_EQ(again["tokens"], result["tokens"]);

  const std::string filled =
      run({"generate", "runs/tiny", "--fill-mask", "poets say that the grass is [MASK].", "--top-k", "3"});
  EXPECT_NE(filled.find("poets say that the grass is green."), std::string::npos) << filled;
  EXPECT_EQ(std::count(filled.begin(), filled.end(), '\n'), 3);
  double sum = 0, last = 100;
  std::istringstream lines(filled);
  for (std::string line; std::getline(lines, line);) {
    EXPECT_LE(std::stod(line), last);
    sum += last = std::stod(line);
  }
  EXPECT_LE(sum, 100.01);
  const std::string two = run({"generate", "runs/tiny", "--fill-mask", "the <mask> is <mask>."});
  EXPECT_NE(two.find("mask 2\n"), std::string::npos) << two;

  const auto refused = [&](std::vector<std::string> arguments, const std::string& message) {
    arguments.insert(arguments.begin(), {"generate", "runs/tiny"});
    const ProcessResult r = space.mixtape(arguments);
    EXPECT_EQ(r.exit_code, 2);
    EXPECT_NE(r.err.find(message), std::string::npos) << r.err;
  };
  refused({"--fill-mask", "no mask"}, "the text has no <mask>");
  refused({"--fill-mask", "a <mask>", "--prompt", "b"}, "keep one");
  refused({"--prompt", "b"}, "--fill-mask");
  EXPECT_NE(space.mixtape({"eval", "runs/tiny", "--choices", "q.jsonl"}).err.find("is an encoder"), std::string::npos);
}

TEST_F(Asked, ADecoderAnswersQuestionsAndKnowsItsWords) {
  prepare("bytes");
  run({"train", "tiny.yaml", "model.vocab_size=257"});
  space.write("q.jsonl", R"({"context": "poets say that the sky is", "choices": ["green", "blue"], "answer": 1}
{"context": "clowns say that the grass is", "choices": ["green", "blue"], "answer": 0}
{"context": "nurses say that the sky is", "choices": ["blue", "a lighthouse", "green"], "answer": 0}
)");
  const auto result = json({"eval", "runs/tiny", "--choices", "q.jsonl", "--json"});
  EXPECT_EQ(result["questions"], 3);
  EXPECT_EQ(result["accuracy"], 1.0) << result;
  EXPECT_LT(result["answer_loss"].get<double>(), 0.5);
  EXPECT_NE(run({"eval", "runs/tiny", "--choices", "q.jsonl"}).find("acc_norm"), std::string::npos);
  EXPECT_EQ(json({"eval", "runs/tiny", "--choices", "q.jsonl", "--json", "--max-questions", "2"})["questions"], 2);
  const auto shot =
      json({"eval", "runs/tiny", "--choices", "q.jsonl", "--json", "--shots", "1", "--shots-from", "q.jsonl"});
  EXPECT_NE(shot["answer_loss"], result["answer_loss"]);

  // The same questions as llm.c has them; a byte's token is its code.
  std::vector<int32_t> header = {20240522, 1, 2};
  header.resize(256);
  std::vector<uint16_t> stream;
  const auto add = [&](int index, int label, const std::vector<std::string>& texts) {
    stream.insert(stream.end(), {65535, 0, uint16_t(index), uint16_t(label), uint16_t(texts.size() - 1)});
    for (const std::string& text : texts) {
      stream.push_back(uint16_t(text.size()));
      for (const char c : text) stream.push_back(uint8_t(c));
    }
  };
  add(0, 1, {"poets say that the sky is", " green", " blue"});
  add(1, 0, {"clowns say that the grass is", " green", " blue"});
  std::string bytes(reinterpret_cast<const char*>(header.data()), 1024);
  bytes.append(reinterpret_cast<const char*>(stream.data()), stream.size() * 2);
  space.write("hellaswag.bin", bytes);
  const auto tokens = json({"eval", "runs/tiny", "--choices", "hellaswag.bin", "--json"});
  EXPECT_EQ(tokens["accuracy_by_token"], 1.0) << tokens;
  EXPECT_TRUE(tokens["accuracy_by_byte"].is_null());
  EXPECT_NEAR(tokens["answer_loss"].get<double>(),
              json({"eval", "runs/tiny", "--choices", "q.jsonl", "--json", "--max-questions", "2"})["answer_loss"],
              1e-5);

  for (const auto& [arguments, message] : std::vector<std::pair<std::vector<std::string>, std::string>>{
           {{}, "expected either data"},
           {{"shards", "--choices", "q.jsonl"}, "expected either data"},
           {{"shards", "--shots", "1"}, "are of --choices"},
           {{"--choices", "q.jsonl", "--shots", "1"}, "go together"},
           {{"--choices", "q.jsonl", "--shots", "9", "--shots-from", "q.jsonl"}, "3 questions, but --shots is 9"},
           {{"--choices", "none.jsonl"}, "none.jsonl: cannot be read"}}) {
    std::vector<std::string> words{"eval", "runs/tiny"};
    words.insert(words.end(), arguments.begin(), arguments.end());
    const ProcessResult r = space.mixtape(words);
    EXPECT_NE(r.exit_code, 0);
    EXPECT_NE(r.err.find(message), std::string::npos) << r.err;
  }
}

TEST_F(Asked, AnEncoderDecoderFillsSpansAndAnswers) {
  pieces();
  run({"train", "tiny.yaml", "objective.name=span_corruption", "model.family=encoder_decoder",
       "model.position=relative_bias", "model.norm=rmsnorm", "model.vocab_size=300", "train.max_steps=200",
       "optimizer.name=adafactor", "optimizer.lr=5e-2"});
  const std::string spans = run({"generate", "runs/tiny", "--prompt",
                                 "poets say that the <extra_id_0> blue. nurses say that the grass is "
                                 "green.",
                                 "-n", "12", "--greedy", "--quiet"});
  // Sentinels say which span follows; the prompt is not repeated, as the text does not continue it.
  EXPECT_EQ(spans.find("<extra_id_0>"), 0u) << spans;
  EXPECT_EQ(spans.find("poets"), std::string::npos) << spans;
  EXPECT_EQ(spans.find("</s>"), std::string::npos) << spans;
  space.write("prompts.txt", "the sky <extra_id_0> blue.\nthe <extra_id_0> is green.\n");
  const std::string both = run({"generate", "runs/tiny", "--prompts", "prompts.txt", "-n", "8", "--greedy"});
  const std::string one =
      run({"generate", "runs/tiny", "--prompt", "the <extra_id_0> is green.", "-n", "8", "--greedy", "--quiet"});
  EXPECT_NE(both.find("the <extra_id_0> is green.\n" + one), std::string::npos) << both << one;

  space.write("q.jsonl", R"({"context": "poets say that the sky", "choices": ["<extra_id_0> is", "is"], "answer": 0})");
  const auto result = json({"eval", "runs/tiny", "--choices", "q.jsonl", "--json"});
  EXPECT_EQ(result["questions"], 1);
  EXPECT_TRUE(std::isfinite(result["answer_loss"].get<double>()));
}

TEST_F(Asked, EmbeddingsHaveNeighboursAndWord2VecsForm) {
  pieces();
  run({"train", "tiny.yaml", "model.vocab_size=304", "train.max_steps=20"});
  const std::string near = run({"inspect", "embeddings", "runs/tiny", "--nearest", "sky", "-n", "4"});
  EXPECT_EQ(std::count(near.begin(), near.end(), '\n'), 5) << near;
  EXPECT_EQ(near.substr(0, near.find('\n')).find("nearest to "), 0u) << near;
  double last = 1;
  std::istringstream lines(near.substr(near.find('\n') + 1));
  for (std::string line; std::getline(lines, line);) {
    EXPECT_LE(std::stod(line), last);
    last = std::stod(line);
  }
  run({"inspect", "embeddings", "runs/tiny", "--export", "vectors.txt"});
  std::istringstream file(space.read("vectors.txt"));
  int64_t count = 0, width = 0;
  file >> count >> width;
  EXPECT_EQ(width, 48);
  EXPECT_GT(count, 256);
  EXPECT_LE(count, 300);  // rows beyond the tokenizer's have no name
  std::string line;
  std::getline(file, line);
  int64_t read = 0;
  for (; std::getline(file, line); ++read) {
    std::istringstream words(line);
    std::string spelling;
    double x = 0;
    int64_t n = 0;
    words >> spelling;
    while (words >> x) ++n;
    ASSERT_EQ(n, width) << line;
  }
  EXPECT_EQ(read, count);
  const ProcessResult none = space.mixtape({"inspect", "embeddings", "runs/tiny"});
  EXPECT_EQ(none.exit_code, 2);
  EXPECT_NE(none.err.find("expected --nearest WORD, --export FILE"), std::string::npos);

  // A blank and a line break are tokens too, and break no line.
  prepare("bytes");
  run({"train", "tiny.yaml", "run.name=bytes", "model.vocab_size=257", "train.max_steps=2", "schedule.warmup_steps=1"});
  run({"inspect", "embeddings", "runs/bytes", "--export", "bytes.txt"});
  const std::string table = space.read("bytes.txt");
  EXPECT_EQ(table.find("257 48\n"), 0u);
  EXPECT_EQ(std::count(table.begin(), table.end(), '\n'), 258);
}

}  // namespace
}  // namespace mixtape
