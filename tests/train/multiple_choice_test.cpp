// Scores of targets, and multiple choice from them: against the logits of each sequence by itself.
#include "train/multiple_choice.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <numeric>

#include "tests/checkpoint/temporary_directory.h"
#include "train/forward.h"
#include "train/score.h"

namespace mixtape {
namespace {

ModelSpec choice_model() {
  return {.n_layers = 2, .d_model = 32, .n_heads = 2, .vocab_size = 300, .max_positions = 64, .init_std = 0.3};
}
ModelSpec encoder_decoder() {
  ModelSpec spec = choice_model();
  spec.family = Family::encoder_decoder, spec.position = Position::relative_bias;
  return spec;
}

std::unique_ptr<Engine> engine_of(const ModelSpec& spec, int64_t rows, const ChoiceShape& shape) {
  EngineOptions options{
      .model = spec, .rows = rows, .row_length = shape.length, .decoder_length = shape.decoder_length};
  Engine planning(options);
  plan_answers(planning);
  logits_of(planning);
  planning.run_micro_batch(false);
  auto engine = std::make_unique<Engine>(options, planning.arena().peak());
  engine->parameters().initialise(3);
  return engine;
}

std::vector<int32_t> tokens(uint64_t seed, int64_t n) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < n; ++i)
    ids.push_back(int32_t(philox(philox_key(seed), uint64_t(i), 0, Purpose::test)[0] % 300));
  return ids;
}

std::vector<double> log_softmax(const float* z, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += std::exp(double(z[i]));
  std::vector<double> values;
  for (int64_t i = 0; i < n; ++i) values.push_back(double(z[i]) - std::log(sum));
  return values;
}

Batch row_of(const std::vector<int32_t>& ids, int64_t length) {
  const auto n = int32_t(ids.size());
  Batch b{.rows = 1, .row_length = int32_t(length), .tokens = ids};
  b.positions.resize(ids.size());
  std::iota(b.positions.begin(), b.positions.end(), 0);
  b.segments = {{0, n, 0, n}};
  b.tokens.resize(size_t(length), -1), b.positions.resize(size_t(length), 0);
  b.targets.assign(size_t(length), -1);
  return b;
}

TEST(Scores, AreTheLogSoftmaxOfTheLogitsAndTheLoss) {
  const auto engine = engine_of(choice_model(), 1, {.length = 40});
  Batch batch = row_of(tokens(1, 37), 40);
  for (int i = 0; i < 37; i += 3) batch.targets[size_t(i)] = (i * 7) % 300;
  engine->load(batch);
  const std::vector<float> logits = logits_of(*engine);
  // One target is made the likeliest token.
  batch.targets[6] =
      int32_t(std::max_element(logits.begin() + 6 * 300, logits.begin() + 7 * 300) - logits.begin()) % 300;
  engine->load(batch);
  const std::vector<TargetScore> scores = score_targets(*engine, batch.targets);
  ASSERT_EQ(scores.size(), 13u);
  double sum = 0;
  for (size_t i = 0; i < scores.size(); ++i) {
    EXPECT_EQ(scores[i].row, int32_t(3 * i));
    const double expected = log_softmax(logits.data() + 900 * i, 300)[size_t(batch.targets[3 * i])];
    EXPECT_NEAR(scores[i].log_likelihood, expected, 1e-5);
    sum += scores[i].log_likelihood;
  }
  EXPECT_TRUE(scores[2].likeliest);
  EXPECT_FALSE(scores[1].likeliest);
  engine->state().inverse_targets = 1.f / 13;
  engine->upload_state();
  EXPECT_NEAR(engine->run_micro_batch(false), -sum / 13, 1e-5);
}

std::vector<Question> some_questions() {
  std::vector<Question> questions;
  for (uint64_t q = 0; q < 9; ++q) {
    Question& question = questions.emplace_back(Question{.context = tokens(100 + q, int64_t(3 + 5 * q))});
    for (uint64_t c = 0; c < 3; ++c)
      question.choices.push_back({tokens(200 + 10 * q + c, int64_t(1 + (q + 3 * c) % 7)), int64_t(3 + q * c)});
    question.answer = int32_t(q % 3);
  }
  return questions;
}

// Each choice by itself, one row at a time, from all logits.
std::vector<std::vector<double>> by_hand(const std::vector<Question>& questions) {
  const auto engine = engine_of(choice_model(), 1, {.length = 64});
  std::vector<std::vector<double>> sums;
  for (const Question& q : questions) {
    sums.emplace_back();
    for (const Choice& c : q.choices) {
      std::vector<int32_t> ids = q.context;
      ids.insert(ids.end(), c.tokens.begin(), c.tokens.end());
      engine->load(row_of(ids, 64));
      const std::vector<float> logits = logits_of(*engine);
      double sum = 0;
      for (size_t i = 0; i < c.tokens.size(); ++i)
        sum += log_softmax(logits.data() + 300 * (q.context.size() - 1 + i), 300)[size_t(c.tokens[i])];
      sums.back().push_back(sum);
    }
  }
  return sums;
}

TEST(MultipleChoice, PackedRowsGiveWhatEachChoiceGivesAlone) {
  const std::vector<Question> questions = some_questions();
  const auto sums = by_hand(questions);
  int64_t right = 0, by_token = 0, by_byte = 0, answer_tokens = 0;
  double loss = 0;
  for (size_t q = 0; q < questions.size(); ++q) {
    const auto& choices = questions[q].choices;
    const auto first_best = [&](auto&& value) {
      int best = 0;
      for (int c = 1; c < 3; ++c)
        if (value(c) > value(best)) best = c;
      return best == questions[q].answer;
    };
    right += first_best([&](int c) { return sums[q][size_t(c)]; });
    by_token += first_best([&](int c) { return sums[q][size_t(c)] / double(choices[size_t(c)].tokens.size()); });
    by_byte += first_best([&](int c) { return sums[q][size_t(c)] / double(choices[size_t(c)].bytes); });
    loss -= sums[q][size_t(questions[q].answer)];
    answer_tokens += int64_t(choices[size_t(questions[q].answer)].tokens.size());
  }
  for (const int64_t rows : {1, 2, 5})
    for (const int64_t length : {64, 100, 256}) {
      const auto engine = engine_of(choice_model(), rows, {.length = length});
      const ChoiceResult r = answer(*engine, questions, {});
      EXPECT_EQ(r.questions, 9);
      EXPECT_EQ(r.right, right);
      EXPECT_EQ(r.right_by_token, by_token);
      EXPECT_EQ(r.right_by_byte, by_byte);
      EXPECT_TRUE(r.has_bytes);
      EXPECT_EQ(r.shortened, 0);
      EXPECT_NEAR(r.answer_loss, loss / double(answer_tokens), 1e-5);
    }
}

TEST(MultipleChoice, AnEncoderReadsTheContextAndItsPackingDoesNotMatter) {
  const std::vector<Question> questions = some_questions();
  const ChoiceShape shape = choice_shape(questions, true, 0);
  EXPECT_GT(shape.decoder_length, 0);
  const auto answers = [&](int64_t rows, const ChoiceShape& s, const std::vector<Question>& of, int32_t start) {
    return answer(*engine_of(encoder_decoder(), rows, s), of, {.decoder_start = start});
  };
  const ChoiceResult packed = answers(3, shape, questions, 7);
  const ChoiceResult alone = answers(1, {.length = 44, .decoder_length = 7}, questions, 7);
  EXPECT_EQ(packed.right, alone.right);
  EXPECT_NEAR(packed.answer_loss, alone.answer_loss, 1e-5);
  EXPECT_GT(std::abs(answers(3, shape, questions, 8).answer_loss - packed.answer_loss), 1e-4) << "its start";
  std::vector<Question> others = questions;
  for (Question& q : others) q.context[0] ^= 1;
  EXPECT_GT(std::abs(answers(3, shape, others, 7).answer_loss - packed.answer_loss), 1e-4) << "what it reads";
}

TEST(MultipleChoice, LongContextsLoseTheirBeginningAndWrongTokensAreRefused) {
  const ModelSpec spec = choice_model();  // 64 positions
  const auto engine = engine_of(spec, 2, {.length = 256});
  const std::vector<int32_t> context = tokens(1, 100);
  const std::vector<Choice> choices = {{tokens(2, 5)}, {tokens(3, 9)}};
  const ChoiceResult r = answer(*engine, {{context, choices, 1}}, {});
  EXPECT_EQ(r.shortened, 1);
  EXPECT_FALSE(r.has_bytes);
  const ChoiceResult end = answer(*engine, {{{context.end() - 56, context.end()}, choices, 1}}, {});
  EXPECT_EQ(end.shortened, 0);
  EXPECT_NEAR(r.answer_loss, end.answer_loss, 1e-5);  // in other rows of the batch
  // Without a context a decoder begins with a token of its own.
  const ChoiceResult bare = answer(*engine, {{{}, choices, 1}}, {.begin = 5});
  EXPECT_EQ(bare.answer_loss, answer(*engine, {{{5}, choices, 1}}, {}).answer_loss);
  EXPECT_THROW(answer(*engine, {{context, {{tokens(2, 65)}, {tokens(3, 9)}}, 1}}, {}), DataError);
  EXPECT_THROW(answer(*engine, {{{300}, choices, 1}}, {}), DataError);
  EXPECT_THROW(answer(*engine, {{{3}, {{{-1}}, {{2}}}, 1}}, {}), DataError);
}

TEST(Questions, JsonLinesAreReadOrRefusedByLine) {
  const TemporaryDirectory directory;
  const auto write = [&](const std::string& text) {
    std::ofstream(directory / "q.jsonl") << text;
    return read_questions(directory / "q.jsonl");
  };
  const auto read = write(R"({"context": "a", "choices": ["b", "c d"], "answer": 1})"
                          "\n\n"
                          R"({"ctx": "", "endings": ["x", "y", "z"], "label": 2, "ind": 4})");
  ASSERT_EQ(read.size(), 2u);
  EXPECT_EQ(read[0].context, "a");
  EXPECT_EQ(read[0].choices, (std::vector<std::string>{"b", "c d"}));
  EXPECT_EQ(read[0].answer, 1);
  EXPECT_EQ(read[1].answer, 2);
  const auto refused = [&](const std::string& line, const std::string& message) {
    try {
      write(R"({"context": "a", "choices": ["b", "c"], "answer": 0})"
            "\n" +
            line);
      ADD_FAILURE() << "accepted " << line;
    } catch (const DataError& error) {
      EXPECT_NE(std::string(error.what()).find("q.jsonl:2: "), std::string::npos) << error.what();
      EXPECT_NE(std::string(error.what()).find(message), std::string::npos) << error.what();
    }
  };
  refused("{", "not valid JSON");
  refused("[1]", "no JSON object");
  refused(R"({"choices": ["b", "c"], "answer": 0})", "\"context\" is missing");
  refused(R"({"context": 1, "choices": ["b", "c"], "answer": 0})", "no text");
  refused(R"({"context": "", "choices": ["b"], "answer": 0})", "no list of 2 to 1000");
  refused(R"({"context": "", "choices": ["b", ""], "answer": 0})", "empty");
  refused(R"({"context": "", "choices": ["b", "c"], "answer": 2})", "is 2, expected the number of a choice, 0 to 1");
  refused(R"({"context": "", "choices": ["b", "c"], "answer": "b"})", "expected the number");
  EXPECT_THROW(write("\n"), DataError);
  EXPECT_THROW(read_questions(directory / "none.jsonl"), DataError);
}

// Bytes are tokens: choices are cut off after the context, with a blank between them where none is.
TEST(Questions, AreTokensOfContextAndChoiceTogether) {
  const auto tokenizer = load_tokenizer("bytes");
  const auto text = [&](const std::vector<int32_t>& ids) { return tokenizer->decode(ids); };
  const std::vector<TextQuestion> questions = {{"ab", {"c", " d"}, 0}, {"e\n", {"f", "g"}, 1}, {"", {"h", "i"}, 0}};
  const auto plain = tokenised(questions, {}, *tokenizer, false);
  EXPECT_EQ(text(plain[0].context), "ab");
  EXPECT_EQ(text(plain[0].choices[0].tokens), " c");
  EXPECT_EQ(text(plain[0].choices[1].tokens), " d");
  EXPECT_EQ(plain[0].choices[0].bytes, 1);
  EXPECT_EQ(text(plain[1].choices[1].tokens), "g");
  EXPECT_EQ(plain[1].answer, 1);
  EXPECT_TRUE(plain[2].context.empty());
  const auto shots = tokenised(questions, {questions[0], questions[1]}, *tokenizer, false);
  EXPECT_EQ(text(shots[2].context), "ab c\n\ne\ng\n\n");
  EXPECT_EQ(text(shots[2].choices[0].tokens), "h");
}

std::string llmc(const std::vector<int32_t>& header, const std::vector<uint16_t>& stream) {
  std::vector<int32_t> whole = header;
  whole.resize(256);
  std::string bytes(reinterpret_cast<const char*>(whole.data()), 1024);
  return bytes.append(reinterpret_cast<const char*>(stream.data()), stream.size() * 2);
}

TEST(Questions, LlmcFilesAreReadOrRefused) {
  const TemporaryDirectory directory;
  const auto read = [&](const std::string& bytes) {
    std::ofstream(directory / "h.bin", std::ios::binary) << bytes;
    return read_llmc_questions(directory / "h.bin");
  };
  const std::vector<int32_t> header = {20240522, 1, 2, 40};
  const std::vector<uint16_t> stream = {65535, 26, 0, 1, 2, 3, 10, 11, 50256, 1, 7, 2, 8, 9,  //
                                        65535, 20, 1, 0, 2, 1, 5,  1,  6,     1, 4};
  const auto questions = read(llmc(header, stream));
  ASSERT_EQ(questions.size(), 2u);
  EXPECT_EQ(questions[0].context, (std::vector<int32_t>{10, 11, 50256}));
  EXPECT_EQ(questions[0].choices[1].tokens, (std::vector<int32_t>{8, 9}));
  EXPECT_EQ(questions[0].answer, 1);
  EXPECT_EQ(questions[1].answer, 0);

  EXPECT_THROW(read("short"), DataError);
  EXPECT_THROW(read(llmc({20240520, 1, 2}, stream)), DataError);
  EXPECT_THROW(read(llmc({20240522, 2, 2}, stream)), DataError);
  EXPECT_THROW(read(llmc({20240522, 1, 1}, stream)), DataError) << "bytes after the last";
  EXPECT_THROW(read(llmc({20240522, 1, 3}, stream)), DataError) << "ends early";
  for (size_t cut = 1; cut < stream.size(); ++cut)
    EXPECT_THROW(read(llmc(header, {stream.begin(), stream.end() - int64_t(cut)})), DataError) << cut;
  for (const auto& [at, value] : std::vector<std::pair<size_t, uint16_t>>{{0, 1}, {3, 2}, {4, 1}, {9, 0}, {5, 60000}}) {
    std::vector<uint16_t> broken = stream;
    broken[at] = value;
    EXPECT_THROW(read(llmc(header, broken)), DataError) << at;
  }
}

}  // namespace
}  // namespace mixtape
