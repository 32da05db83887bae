#include "train/report/console.h"

#include <gtest/gtest.h>

#include <regex>

#include "tests/report/temporary.h"

namespace mixtape {
namespace {

// A console on two memory streams.
struct Captured {
  explicit Captured(ConsoleOptions options = {}) {
    options.out = ::open_memstream(&out_text, &out_size);
    options.err = ::open_memstream(&err_text, &err_size);
    out_stream = options.out, err_stream = options.err;
    console.emplace(options);
  }
  ~Captured() {
    console.reset();
    std::fclose(out_stream), std::fclose(err_stream);
    ::free(out_text), ::free(err_text);
  }
  std::string out() { return std::fflush(out_stream), std::string(out_text, out_size); }
  std::string err() { return std::fflush(err_stream), std::string(err_text, err_size); }

  char *out_text = nullptr, *err_text = nullptr;
  size_t out_size = 0, err_size = 0;
  std::FILE *out_stream, *err_stream;
  std::optional<Console> console;
};

const StepMetrics metrics{.step = 100,
                          .loss = 4.12341,
                          .grad_norm = 1.02,
                          .lr = 6e-4,
                          .tokens_per_second = 12345,
                          .data_wait_share = 0.003,
                          .memory_bytes = 1299227607};

TEST(Console, APipeGetsPlainLinesAndNoBar) {
  Captured c;
  c.console->bar("bar", true);
  c.console->line(c.console->bold("hello"));
  c.console->warn("careful");
  EXPECT_EQ(c.out(), "hello\n");
  EXPECT_EQ(c.err(), "warning: careful\n");
}

TEST(Console, ColourIsTakenOutWhereItIsOff) {
  Captured c;
  c.console->line("\x1b[1mbold\x1b[0m");
  EXPECT_EQ(c.out(), "bold\n");
}

TEST(Console, TheLogIsPlainAndTimedEvenOnAColourTerminal) {
  const TemporaryFolder folder;
  Captured c({.terminal = true, .colour = true});
  c.console->log_to(folder / "train.log");
  c.console->line(c.console->bold("hello"));
  c.console->warn("careful");
  EXPECT_EQ(c.out(), "\x1b[1mhello\x1b[0m\n");
  EXPECT_TRUE(std::regex_match(read(folder / "train.log"),
                               std::regex("....-..-.. ..:..:..  hello\n....-..-.. ..:..:..  warning: careful\n")));
}

TEST(Console, ALineErasesTheBarAndTheBarComesBack) {
  Captured c({.terminal = true, .colour = false, .width = 40});
  c.console->bar("half way", true);
  EXPECT_EQ(c.err(), "\r\x1b[Khalf way");
  c.console->line("a line");
  EXPECT_EQ(c.err(), "\r\x1b[Khalf way\r\x1b[K\r\x1b[Khalf way");
  c.console->bar("", true);
  EXPECT_TRUE(c.err().ends_with("\r\x1b[K"));
}

TEST(Console, TheBarNeverFillsTheLastColumn) {
  Captured c({.terminal = true, .colour = false, .width = 10});
  c.console->bar("0123456789abcdef", true);
  EXPECT_EQ(c.err(), "\r\x1b[K012345678");
}

TEST(Console, StepLine) {
  Captured c;
  EXPECT_EQ(step_line(*c.console, metrics, 2000, 192),
            "step   100/2,000  loss  4.1234  grad_norm  1.020  lr 6.00e-04   12,345 tok/s  1.21 GiB  wait 0.3 %  eta  "
            "3m 12s");
}

TEST(Console, StepLineOnANarrowTerminalDropsColumnsFromTheRight) {
  Captured c;
  EXPECT_EQ(step_line(*c.console, metrics, 2000, 192, 50), "step   100/2,000  loss  4.1234  grad_norm  1.020");
}

TEST(Console, PrintableTextCannotMoveTheCursor) {
  EXPECT_EQ(printable("a\x1b[2Jb\r\nc\td\x07"), "a[2Jb c d");
  EXPECT_EQ(printable("\xff\xc3\xa9"), "\xEF\xBF\xBD\xc3\xa9");
  EXPECT_EQ(printable("\xe2\x80\xaeright to left"), "right to left");
}

TEST(Console, DisplayWidth) {
  EXPECT_EQ(display_width("\x1b[36mab\x1b[0m"), 2);
  EXPECT_EQ(display_width("é"), 1);
  EXPECT_EQ(display_width("日本"), 4);
}

TEST(Meter, FillsByHalves) {
  Captured ascii({.terminal = true, .colour = false, .unicode = false});
  EXPECT_EQ(meter(*ascii.console, 0, 4), "----");
  EXPECT_EQ(meter(*ascii.console, 0.375, 4), "=>--");
  EXPECT_EQ(meter(*ascii.console, 7, 4), "====");
}

TEST(Progress, OnATerminalABarAndThenOneLine) {
  Captured c({.terminal = true, .colour = false, .unicode = false, .width = 80});
  Progress progress("tokenize", 4 << 20, Unit::bytes, *c.console);
  EXPECT_NE(c.err().find("tokenize  ----"), std::string::npos);
  EXPECT_NE(c.err().find("0 B/4.00 MiB"), std::string::npos);
  progress.advance(4 << 20);
  progress.finish("12 files");
  EXPECT_TRUE(std::regex_match(c.out(), std::regex("tokenize  4\\.00 MiB in .* s.*  12 files\n")));
  EXPECT_TRUE(c.err().ends_with("\x1b[K"));
}

TEST(Progress, ANarrowTerminalLosesTheNoteBeforeTheMeter) {
  Captured c({.terminal = true, .colour = false, .unicode = false, .width = 40});
  Progress progress("read", 10, Unit::items, *c.console);
  progress.note("a long note that does not fit in here");
  EXPECT_TRUE(c.err().starts_with("\r\x1b[Kread  ----------------")) << c.err();
}

TEST(Progress, InAPipeOnlyTheClosingLine) {
  Captured c;
  {
    Progress progress("read", 10, Unit::items, *c.console);
    progress.set(10);
    progress.finish();
  }
  EXPECT_TRUE(std::regex_match(c.out(), std::regex("read  10 in .*\n")));
  EXPECT_EQ(c.err(), "");
}

TEST(Progress, WithoutFinishNothingClaimsSuccess) {
  Captured c;
  { Progress progress("read", 10, Unit::items, *c.console); }
  EXPECT_EQ(c.out(), "");
}

}  // namespace
}  // namespace mixtape
