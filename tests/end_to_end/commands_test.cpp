// The command line itself: what it refuses, how, and what its options do.
#include <gtest/gtest.h>

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
      {{"data", "inspect", "x", "--documents", "many"}, "--documents: 'many', expected at least 0"},
      {{"data", "prepare", "x", "-t", "bytes", "-o", "y", "--invalid-utf8", "hope"}, "--invalid-utf8"},
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
