// Objectives of fine-tuning: examples as a model sees them, and rows of them.
#include "train/objective/fine_tuning.h"

#include <set>

#include "tests/data/objective_support.h"
#include "train/config/config.h"
#include "train/data/tokenizer/tokenizer.h"
#include "train/objective/instruct.h"
#include "train/objective/make.h"

namespace mixtape::test {
namespace {

const std::string tokenizers = std::string(MIXTAPE_GOLDEN) + "/tokenizers/";

class FineTuningTest : public testing::Test {
 protected:
  // The data as JSONL; the objective's configuration on it.
  Config config_of(ObjectiveKind kind, const std::string& lines, int64_t length = 32) {
    write_bytes(directory / "examples.jsonl", lines);
    Config config;
    config.objective.name = kind;
    config.data.sources = {{.name = "a", .path = directory / "examples.jsonl", .max_epochs = 1}};
    config.data.validation_split = 0;
    config.data.seq_length = length;
    config.model.token_types = 2;
    return config;
  }
  Batch first_row(const Config& config, const Tokenizer& tokenizer) {
    Batch batch;
    training_objective(config, tokenizer)->fill(std::vector<uint64_t>{0}, batch);
    return batch;
  }
  std::string error(const Config& config, const Tokenizer& tokenizer) {
    return error_of([&] { training_objective(config, tokenizer); });
  }
  TemporaryDirectory directory;
  std::unique_ptr<Tokenizer> bert = load_tokenizer(tokenizers + "bert_wordpiece/tokenizer.json");
  std::unique_ptr<Tokenizer> gpt2 = load_tokenizer(tokenizers + "bpe/tokenizer.json");
  std::unique_ptr<Tokenizer> t5 = load_tokenizer(tokenizers + "t5_unigram/spiece.model");
};

Tokens real(const Batch& batch, const Tokens& tokens) {
  return Tokens(tokens.begin(), tokens.begin() + long(batch.n_tokens));
}

TEST_F(FineTuningTest, ClassificationPredictsTheLabelAtTheFirstToken) {
  Config config = config_of(ObjectiveKind::classify, R"({"text": "The time of the people", "label": "good"})"
                                                     "\n");
  config.objective.labels = {"bad", "good"};
  const Batch batch = first_row(config, *bert);
  EXPECT_EQ(real(batch, batch.tokens), bert->encode("The time of the people", {.add_special = true}));
  EXPECT_EQ(batch.targets[0], 1);
  EXPECT_EQ(std::count(batch.targets.begin(), batch.targets.end(), -1), 31);
  EXPECT_EQ(batch.n_targets, 1);
  EXPECT_EQ(batch.token_types, Tokens(32, 0));
  const auto length = int32_t(batch.n_tokens);
  EXPECT_EQ(batch.segments, (std::vector<Segment>{{0, length, 0, length}, {length, 32 - length, length, 32 - length}}));
}

// As the tokenizer's own template has it, and cut as transformers cuts: the longer text first.
TEST_F(FineTuningTest, PairsAreEnclosedAndCutAsInTransformers) {
  Config config = config_of(ObjectiveKind::classify,
                            R"({"premise": "the time of the people and the way", "hypothesis": "a day", "label": 0})");
  config.objective.labels = {"yes"};
  const EncodedPair whole = bert->encode_pair("the time of the people and the way", "a day");
  ASSERT_LT(whole.ids.size(), 32u);
  Batch batch = first_row(config, *bert);
  EXPECT_EQ(real(batch, batch.tokens), whole.ids);
  EXPECT_EQ(real(batch, batch.token_types), whole.types);

  const Tokens first = bert->encode("the time of the people and the way"), second = bert->encode("a day");
  ASSERT_GT(first.size(), second.size() + 2);
  config.data.seq_length = int64_t(second.size() * 2 + 1 + 3);  // room for one token more than both cut alike
  batch = first_row(config, *bert);
  Tokens expected{whole.ids.front()};
  expected.insert(expected.end(), first.begin(), first.begin() + long(second.size()) + 1);
  expected.push_back(whole.ids.back());
  expected.insert(expected.end(), second.begin(), second.end());
  expected.push_back(whole.ids.back());
  EXPECT_EQ(batch.tokens, expected);
  EXPECT_EQ(training_objective(config, *bert)->statistics()[0].cut, 1u);

  // A model without types gets none.
  config.model.token_types = 1;
  batch = first_row(config, *bert);
  EXPECT_EQ(std::count(batch.token_types.begin(), batch.token_types.end(), 0), long(batch.token_types.size()));
}

TEST_F(FineTuningTest, TagsAreAtTheFirstTokenOfEachWord) {
  Config config =
      config_of(ObjectiveKind::tag, R"({"tokens": ["Unbelievable", "people", "talk"], "tags": ["A", "B", 0]})");
  config.objective.labels = {"O", "A", "B"};
  const Batch batch = first_row(config, *bert);
  Tokens tokens{*bert->special_tokens().cls}, targets{-1};
  const int32_t tags[] = {1, 2, 0};
  int i = 0;
  for (const char* word : {"Unbelievable", "people", "talk"}) {
    const Tokens pieces = bert->encode(word);
    tokens.insert(tokens.end(), pieces.begin(), pieces.end());
    targets.push_back(tags[i++]);
    targets.resize(tokens.size(), -1);
  }
  ASSERT_GT(bert->encode("Unbelievable").size(), 1u);
  tokens.push_back(*bert->special_tokens().sep);
  targets.push_back(-1);
  EXPECT_EQ(real(batch, batch.tokens), tokens);
  EXPECT_EQ(real(batch, batch.targets), targets);
  EXPECT_EQ(batch.n_targets, 3);
}

// T5: text </s>, the decoder begins with the padding token.
TEST_F(FineTuningTest, PairsOfTextsForAnEncoderDecoder) {
  const Config config = config_of(ObjectiveKind::seq2seq, R"({"source": "the people", "target": "time"})"
                                                          "\n"
                                                          R"({"source": "a", "target": "of the day"})");
  const auto objective = training_objective(config, *t5);
  EXPECT_EQ(objective->shape().decoder_length, 32);
  Batch batch;
  objective->fill(std::vector<uint64_t>{0}, batch);
  const auto& decoder = batch.decoder;
  ASSERT_EQ(decoder.cross_segments.size(), 2u);
  std::set<std::pair<Tokens, Tokens>> found;
  for (const Segment& s : decoder.cross_segments) {
    const auto part = [](const Tokens& all, int32_t begin, int32_t length) {
      return Tokens(all.begin() + begin, all.begin() + begin + length);
    };
    const Tokens written = part(decoder.tokens, s.q_start, s.q_len), targets = part(batch.targets, s.q_start, s.q_len);
    EXPECT_EQ(written[0], *t5->pad_id());
    EXPECT_TRUE(std::equal(written.begin() + 1, written.end(), targets.begin()));
    found.insert({part(batch.tokens, s.k_start, s.k_len), targets});
  }
  const auto framed = [&](const char* text) { return t5->encode(text, {.add_special = true}); };
  EXPECT_EQ(found, (std::set<std::pair<Tokens, Tokens>>{{framed("the people"), framed("time")},
                                                        {framed("a"), framed("of the day")}}));
  EXPECT_EQ(framed("a").back(), *t5->eos_id());
  EXPECT_EQ(batch.n_targets, long(framed("time").size() + framed("of the day").size()));
}

TEST_F(FineTuningTest, OnlyTheResponseOfAPromptIsPredicted) {
  const Config config = config_of(ObjectiveKind::instruct, R"({"prompt": "the people of", "completion": " the time"})");
  const Batch batch = first_row(config, *gpt2);
  Tokens all = gpt2->encode("the people of"), targets(all.size() - 1, -1);
  const Tokens response = gpt2->encode(" the time");
  all.insert(all.end(), response.begin(), response.end());
  targets.insert(targets.end(), response.begin(), response.end());
  targets.push_back(*gpt2->eos_id());
  EXPECT_EQ(real(batch, batch.tokens), all);
  EXPECT_EQ(real(batch, batch.targets), targets);
  EXPECT_EQ(batch.n_targets, long(response.size()) + 1);
}

// Where the template begins texts with <s>, examples do.
TEST_F(FineTuningTest, AnInstructionBeginsAsTextsDo) {
  const auto llama = load_tokenizer(tokenizers + "llama_bpe/tokenizer.json");
  const Batch batch = first_row(config_of(ObjectiveKind::instruct, R"({"prompt": "the", "response": "a"})"), *llama);
  EXPECT_EQ(batch.tokens[0], *llama->bos_id());
}

// Too long an example loses its end; one without any response left is counted, not trained on.
TEST_F(FineTuningTest, LongExamplesAreCutOrLeftOut) {
  std::string longest;
  for (int i = 0; i < 60; ++i) longest += " the people";
  const Config config = config_of(ObjectiveKind::instruct, R"({"prompt": ")" + longest +
                                                               R"(", "response": "a"})"
                                                               "\n"
                                                               R"({"prompt": "a", "response": ")" +
                                                               longest + R"("})");
  const auto objective = training_objective(config, *gpt2);
  EXPECT_EQ(objective->statistics()[0].cut, 2u);
  EXPECT_EQ(objective->statistics()[0].without_target, 1u);
  EXPECT_EQ(objective->statistics()[0].documents, 1u);
  Batch batch;
  objective->fill(std::vector<uint64_t>{0}, batch);
  EXPECT_EQ(batch.n_tokens, 32);
  EXPECT_EQ(batch.targets.back(), gpt2->encode(longest)[32 - gpt2->encode("a").size()]);
}

std::string numbered(int count) {
  std::string lines;
  for (int i = 0; i < count; ++i) {
    std::string response;
    for (int w = 0; w <= i * 7 % 5; ++w) response += " w" + std::to_string(i);
    lines += R"({"prompt": "number )" + std::to_string(i) + R"(", "response": ")" + response + "\"}\n";
  }
  return lines;
}

// Each example once an epoch, whole, in one segment; the order changes from epoch to epoch and not from run to run.
TEST_F(FineTuningTest, RowsHoldEachExampleOnceAnEpoch) {
  Config config = config_of(ObjectiveKind::instruct, numbered(40), 64);
  config.data.sources[0].max_epochs = 3;
  const auto objective = training_objective(config, *gpt2);
  std::vector<uint64_t> rows(*objective->size());
  std::iota(rows.begin(), rows.end(), 0);
  Batch batch;
  objective->fill(rows, batch);
  expect_sound_segments(batch.segments, batch.positions, 64);
  std::vector<Tokens> examples;
  for (const Segment& s : batch.segments) {
    const Tokens tokens(batch.tokens.begin() + s.q_start, batch.tokens.begin() + s.q_start + s.q_len);
    const Tokens targets(batch.targets.begin() + s.q_start, batch.targets.begin() + s.q_start + s.q_len);
    if (targets.back() == -1) continue;  // padding
    EXPECT_EQ(targets.back(), *gpt2->eos_id());
    examples.push_back(tokens);
  }
  ASSERT_EQ(examples.size(), 120u);
  const auto epoch = [&](int i) {
    return std::vector<Tokens>(examples.begin() + 40 * i, examples.begin() + 40 * i + 40);
  };
  EXPECT_NE(epoch(0), epoch(1));
  for (const int i : {0, 1, 2}) {
    const auto one = epoch(i);
    EXPECT_EQ(std::set<Tokens>(one.begin(), one.end()).size(), 40u);
  }
  EXPECT_GT(double(batch.n_tokens) / double(batch.tokens.size()), 0.7);  // little padding

  expect_pure(*objective, {&Batch::tokens, &Batch::targets});
  Batch again;
  training_objective(config, *gpt2)->fill(std::vector<uint64_t>{5}, again);  // as a resumed run asks for it
  EXPECT_TRUE(std::equal(again.tokens.begin(), again.tokens.end(), batch.tokens.begin() + 5 * 64));
  config.seed = 7;
  training_objective(config, *gpt2)->fill(std::vector<uint64_t>{5}, again);
  EXPECT_FALSE(std::equal(again.tokens.begin(), again.tokens.end(), batch.tokens.begin() + 5 * 64));
}

TEST_F(FineTuningTest, WithoutPackingARowIsOneExample) {
  Config config = config_of(ObjectiveKind::instruct, numbered(12), 64);
  config.data.pack = false;
  config.data.sources[0].max_epochs = 1;
  const auto objective = training_objective(config, *gpt2);
  EXPECT_EQ(objective->size(), 12u);
  Batch batch;
  objective->fill(std::vector<uint64_t>{0, 1}, batch);
  EXPECT_EQ(batch.segments.size(), 4u);
}

TEST_F(FineTuningTest, TrainingAndValidationShareNoExample) {
  Config config = config_of(ObjectiveKind::instruct, numbered(60), 64);
  config.data.validation_split = 0.2;
  config.data.pack = false;
  config.data.sources[0].max_epochs = 1;
  std::set<Tokens> seen;
  uint64_t total = 0;
  for (const auto& objective : {training_objective(config, *gpt2), validation_objective(config, *gpt2)}) {
    for (uint64_t i = 0; i < *objective->size(); ++i, ++total) {
      Batch batch;
      objective->fill(std::span(&i, 1), batch);
      EXPECT_TRUE(seen.insert(batch.tokens).second);
    }
  }
  EXPECT_EQ(total, 60u);
  EXPECT_GT(*validation_objective(config, *gpt2)->size(), 4u);
  // A path of its own: then no example is set apart.
  config.data.sources[0].validation = directory / "examples.jsonl";
  EXPECT_EQ(training_objective(config, *gpt2)->size(), 60u);
  EXPECT_EQ(validation_objective(config, *gpt2)->size(), 60u);
}

TEST_F(FineTuningTest, BadLinesAreNamedByFileAndLine) {
  const std::string good = R"({"text": "a", "label": "x"})"
                           "\n";
  const auto classify = [&](const std::string& line) {
    Config config = config_of(ObjectiveKind::classify, good + "\n" + line);
    config.objective.labels = {"x", "y"};
    return error(config, *bert);
  };
  const std::string where = (directory / "examples.jsonl").string() + ":3: ";
  EXPECT_EQ(classify(R"({"text": "a", "label": "z"})"),
            where + R"("label" is "z", expected one of objective.labels (x, y) or its number from 0)");
  EXPECT_NE(classify(R"({"text": "a", "label": 2})").find(where + R"("label" is 2, expected one of)"),
            std::string::npos);
  EXPECT_EQ(classify(R"({"words": "a", "label": 1})"),
            where + R"(there is no "text" or "sentence" or "sentence1" or "premise"; the line has label, words)");
  EXPECT_EQ(classify(R"({"text": 7, "label": 1})"), where + R"("text" is 7, expected a text)");
  EXPECT_EQ(classify("[1]"), where + "[1], expected a JSON object");
  EXPECT_NE(classify(R"({"text": )").find(where + "not valid JSON"), std::string::npos);
  EXPECT_NE(classify("{\"text\": \"\xff\", \"label\": 1}").find(where), std::string::npos);
  EXPECT_EQ(classify(""), "");

  Config tags = config_of(ObjectiveKind::tag, R"({"tokens": ["a", "b"], "tags": ["x"]})");
  tags.objective.labels = {"x"};
  EXPECT_NE(error(tags, *bert).find(":1: 2 tokens and 1 tags"), std::string::npos);
  Config empty = config_of(ObjectiveKind::instruct, "\n");
  EXPECT_NE(error(empty, *gpt2).find("there is no example in it"), std::string::npos);
  empty.data.sources[0].path = tokenizers + "bpe/vocab.json";
  EXPECT_NE(error(empty, *gpt2).find("expected examples as JSON"), std::string::npos);
}

TEST_F(FineTuningTest, TokensThatAreMissingAreNamed) {
  const auto bytes = load_tokenizer("bytes");
  Config classify = config_of(ObjectiveKind::classify, R"({"text": "a", "label": 0})");
  classify.objective.labels = {"x"};
  EXPECT_NE(error(classify, *bytes).find("cls_token"), std::string::npos);
  EXPECT_NE(error(config_of(ObjectiveKind::seq2seq, R"({"source": "a", "target": "b"})"), *bytes).find("ends texts"),
            std::string::npos);
}

}  // namespace
}  // namespace mixtape::test
