// The command line itself: what it refuses, how, and what its options do.
#include <gtest/gtest.h>

#include <regex>

#include "tests/end_to_end/process.h"

namespace mixtape {
namespace {

TEST(Commands, WrongWordsAreRefusedInOneLineWithWhatWasExpected) {
  const Workspace space;
  const struct {
    std::vector<std::string> arguments;
    std::string expected;
  } cases[] = {
      {{"generate", "x", "--top-p", "3"}, "--top-p: '3', expected 0 to 1"},
      {{"generate", "x", "--top-p", "nan"}, "--top-p: 'nan', expected 0 to 1"},
      {{"generate", "x", "--top-k", "-1"}, "--top-k: '-1', expected at least 0"},
      {{"generate", "x", "--dtype", "fp31"}, "--dtype"},
      {{"data", "inspect", "x", "--documents", "many"}, "--documents: 'many', expected 0 to 1000000000"},
      {{"data", "prepare", "x", "-t", "bytes", "-o", "y", "--invalid-utf8", "hope"}, "--invalid-utf8"},
      {{"data", "inspect", "x", "--documents", "1.5"}, "--documents: '1.5', expected a whole number, 0 to"},
      {{"data", "prepare", "x", "-t", "bytes", "-o", "y", "--validation-split", "1"}, "--validation-split: '1'"},
      {{"tokenizer", "train", "x", "--vocab-size", "0"}, "--vocab-size: '0', expected 1 to 16777216"},
      {{"tokenizer", "train", "x", "--vocab-size", "99999999999"}, "--vocab-size: '99999999999', expected 1 to"},
      {{"tokenizer", "train", "x", "--threads", "-1"}, "--threads: '-1', expected 0 to 1024"},
      {{"tokenizer", "train", "x", "--min-frequency", "0"}, "--min-frequency: '0', expected 1 to"},
      {{"generate", "x", "--threads", "100000"}, "--threads: '100000', expected 0 to 1024"},
      {{"generate", "x", "--seed", "-1"}, "--seed: '-1', expected at least 0"},
      {{"generate", "x", "--prompt", "a", "--prompts", "b"}, "--prompt and --prompts are both given"},
      {{"plan", "--tokens-per-second", "-1"}, "--tokens-per-second: '-1', expected at least 0"},
      {{"train", "optimizer.lr"}, "optimizer.lr: cannot be opened"},
      {{"eval"}, "model is required"},
      {{"eval", "x", "y", "--bogus"}, "--bogus"},
      {{"train", "--bogus"}, "'--bogus' is no option of this command"},
      {{"dance"}, "'dance' is no command of mixtape; expected train, eval"},
      {{"data", "dance"},
       "'dance' is no command of mixtape data; expected prepare, inspect, stats\nTry: mixtape data --help"},
      {{"data"}, "which command of mixtape data? One of prepare, inspect, stats"},
      {{}, "which command of mixtape? One of train, eval"},
  };
  for (const auto& c : cases) {
    const ProcessResult r = space.mixtape(c.arguments);
    EXPECT_EQ(r.exit_code, 2) << c.expected;
    EXPECT_NE(r.err.find(c.expected), std::string::npos) << r.err;
    EXPECT_EQ(r.err.rfind("mixtape: ", 0), 0u) << r.err;
    EXPECT_TRUE(r.out.empty()) << r.out;
  }
}

TEST(Commands, HelpShowsDefaultsAndRanges) {
  const Workspace space;
  const ProcessResult r = space.mixtape({"generate", "--help"});
  EXPECT_EQ(r.exit_code, 0);
  EXPECT_NE(r.out.find("--batch-size INT:1 to 4096=8"), std::string::npos) << r.out;
  EXPECT_EQ(space.mixtape({"--version"}).exit_code, 0);
}

// A number that any value passes for ends in a crash, or in silence.
TEST(Commands, EveryNumberHasARange) {
  const Workspace space;
  const std::regex number(R"(\b(INT|UINT|FLOAT)\b(?!:))");
  for (const std::vector<std::string>& command : std::vector<std::vector<std::string>>{{"train"},
                                                                                       {"eval"},
                                                                                       {"generate"},
                                                                                       {"forward"},
                                                                                       {"plan"},
                                                                                       {"config"},
                                                                                       {"doctor"},
                                                                                       {"report"},
                                                                                       {"export"},
                                                                                       {"import"},
                                                                                       {"data", "prepare"},
                                                                                       {"data", "inspect"},
                                                                                       {"data", "stats"},
                                                                                       {"tokenizer", "train"},
                                                                                       {"tokenizer", "encode"},
                                                                                       {"tokenizer", "decode"},
                                                                                       {"bench", "train"},
                                                                                       {"bench", "ops"},
                                                                                       {"bench", "tokenizer"},
                                                                                       {"inspect", "checkpoint"},
                                                                                       {"inspect", "embeddings"}}) {
    std::vector<std::string> words = command;
    words.push_back("--help");
    const ProcessResult r = space.mixtape(words);
    EXPECT_EQ(r.exit_code, 0);
    EXPECT_FALSE(std::regex_search(r.out, number)) << r.out;
  }
}

TEST(Commands, StatisticsShowWhatTokensStandFor) {
  const Workspace space;
  space.write("text.txt", "a\na\na b");
  ASSERT_EQ(space.mixtape({"data", "prepare", "text.txt", "-t", "bytes", "-o", "a"}).exit_code, 0);
  const ProcessResult r = space.mixtape({"data", "stats", "a"});
  EXPECT_EQ(r.exit_code, 0) << r.err;
  EXPECT_NE(r.out.find("'a'"), std::string::npos) << r.out;
  EXPECT_NE(r.out.find("'\\n'"), std::string::npos) << r.out;
  EXPECT_NE(r.out.find("' '"), std::string::npos) << r.out;
}

TEST(Commands, DoctorSaysWhatThereIs) {
  const Workspace space;
  const ProcessResult r = space.mixtape({"doctor"});
  EXPECT_EQ(r.exit_code, 0) << r.err;
  for (const char* text :
       {"devices", "cpu", "cuda", "instruction sets", "OpenBLAS", "kernels for", "matmul choices", "may run on"})
    EXPECT_NE(r.out.find(text), std::string::npos) << r.out;
  EXPECT_EQ(r.out.find('\x1b'), std::string::npos) << "colour in a file";
}

// What each objective shows of the same documents, without colour.
TEST(Commands, InspectShowsSamplesAsTheModelSeesThem) {
  const Workspace space;
  space.write("text.txt", sample_text(60));
  ASSERT_EQ(space
                .mixtape({"tokenizer", "train", "text.txt", "-o", "t.json", "--vocab-size", "400", "--special", "<s>",
                          "<pad>", "</s>", "<mask>", "<extra_id_0>", "<extra_id_1>"})
                .exit_code,
            0);
  ASSERT_EQ(
      space.mixtape({"data", "prepare", "text.txt", "-t", "t.json", "--separator", "%", "-o", "shards"}).exit_code, 0);
  space.write("a.yaml",
              "data: {tokenizer: t.json, sources: [{path: shards}], validation_split: 0.2, seq_length: 24}\n");
  const auto inspect = [&](std::vector<std::string> more) {
    more.insert(more.begin(), {"data", "inspect", "a.yaml"});
    return space.mixtape(more);
  };
  const auto shows = [&](const ProcessResult& r, const std::string& text) {
    EXPECT_EQ(r.exit_code, 0) << r.err;
    EXPECT_NE(r.out.find(text), std::string::npos) << text << " is not in:\n" << r.out;
  };
  const ProcessResult causal = inspect({"-n", "5"});
  shows(causal, "  reads    </s>|");
  shows(causal, "|</s>\n");  // the end is predicted
  shows(causal, "sample 4 (shards, 24 targets)");
  EXPECT_EQ(causal.out.find("sample 5"), std::string::npos);

  const ProcessResult masked = inspect({"objective.name=masked_lm", "model.family=encoder"});
  shows(masked, "  reads    <s>|");
  shows(masked, "<mask>{");
  shows(masked, "at most 4; padding 0.00 %");

  const ProcessResult spans = inspect({"objective.name=span_corruption", "model.family=encoder_decoder"});
  shows(spans, "24 tokens of the encoder, 6 of the decoder");
  shows(spans, "  decoder  <pad>|<extra_id_0>|");
  shows(spans, "  predicts <extra_id_0>|");

  const ProcessResult denoising = inspect({"objective.name=denoising", "model.family=encoder_decoder"});
  shows(denoising, "  encoder  <s>|");
  shows(denoising, "  decoder  </s>|<s>|");
  shows(denoising, "  predicts <s>|");

  const ProcessResult late = inspect({"--first", "3", "-n", "1"});
  const std::string third = late.out.substr(late.out.find("sample 3"));
  EXPECT_NE(causal.out.find(third), std::string::npos) << "sample 3 depends on what is shown before it";
  shows(inspect({"--validation"}), "sample 0");
  EXPECT_EQ(inspect({"--validation", "--first", "100000"}).exit_code, 2);
  EXPECT_NE(inspect({"data.validation_split=0", "eval.interval=0", "--validation"}).err.find("no validation data"),
            std::string::npos);
  const ProcessResult lacks = inspect({"data.tokenizer=bytes", "objective.name=masked_lm", "model.family=encoder"});
  EXPECT_NE(lacks.err.find("cls"), std::string::npos) << lacks.err;
  EXPECT_EQ(lacks.exit_code, 2);
  EXPECT_NE(space.mixtape({"data", "inspect", "shards", "x=1"}).err.find("a configuration ends in .yaml"),
            std::string::npos);
}

TEST(Commands, PreparationRepairsBrokenTextUnlessTold) {
  const Workspace space;
  space.write("text.txt", "good\n%\nbad \xff text\n");
  const std::vector<std::string> prepare{"data", "prepare", "text.txt", "-t", "bytes", "--separator", "%", "-o"};
  const auto with = [&](const std::vector<std::string>& more) {
    std::vector<std::string> words = prepare;
    words.insert(words.end(), more.begin(), more.end());
    return space.mixtape(words);
  };
  const ProcessResult repaired = with({"a"});
  EXPECT_EQ(repaired.exit_code, 0) << repaired.err;
  EXPECT_NE((repaired.out + repaired.err).find("U+FFFD"), std::string::npos);
  EXPECT_EQ(with({"b", "--invalid-utf8", "error"}).exit_code, 3);
}

TEST(Commands, PreparationStopsAtBadLinesUnlessToldToSkip) {
  const Workspace space;
  space.write("text.jsonl", "{\"text\": \"one\"}\n{\"text\":\n{\"text\": \"two\"}\n");
  const ProcessResult stopped = space.mixtape({"data", "prepare", "text.jsonl", "-t", "bytes", "-o", "a"});
  EXPECT_EQ(stopped.exit_code, 3);
  EXPECT_NE(stopped.err.find(":2"), std::string::npos) << stopped.err;
  const ProcessResult skipped =
      space.mixtape({"data", "prepare", "text.jsonl", "-t", "bytes", "-o", "b", "--skip-bad-lines"});
  EXPECT_EQ(skipped.exit_code, 0) << skipped.err;
  EXPECT_NE((skipped.out + skipped.err).find("2 documents"), std::string::npos) << skipped.out << skipped.err;
}

TEST(Commands, DocumentsAreClosedUnlessTold) {
  const Workspace space;
  space.write("text.txt", "abc");
  const auto size = [&](const std::string& to, const std::string& flag) {
    const ProcessResult r = space.mixtape({"data", "prepare", "text.txt", "-t", "bytes", "-o", to, flag});
    EXPECT_EQ(r.exit_code, 0) << r.err;
    return r.out + r.err;
  };
  EXPECT_NE(size("a", "--append-eos").find("4 tokens"), std::string::npos);
  EXPECT_NE(size("b", "--no-append-eos").find("3 tokens"), std::string::npos);
}

}  // namespace
}  // namespace mixtape
