// What a command shows: lines on standard output, warnings and one live bar on standard error.
//
// The bar is drawn only where standard error is a terminal; a file or a pipe gets plain lines. Colour needs a terminal
// and neither NO_COLOR (no-color.org) nor TERM=dumb. All members may be called from any thread.
#pragma once

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "core/base/clock.h"
#include "train/report/metrics.h"

namespace mixtape {

struct ConsoleOptions {
  std::FILE* out = stdout;
  std::FILE* err = stderr;
  // Found from the streams and the environment where not given.
  std::optional<bool> terminal = std::nullopt, colour = std::nullopt, unicode = std::nullopt;
  std::optional<int> width = std::nullopt;
};

class Console {
 public:
  explicit Console(ConsoleOptions options = {});
  ~Console();
  Console(const Console&) = delete;
  Console& operator=(const Console&) = delete;

  // From now on every line also goes to `file`, appended, with the time and without colour.
  void log_to(const std::filesystem::path& file);
  void line(std::string_view text) { line(text, text); }
  void line(std::string_view shown, std::string_view logged);
  void warn(std::string_view text);  // "warning: text", in yellow, on standard error
  // From now on plain lines: mpirun gives its processes a terminal, wherever its own output goes.
  void plain();
  // From now on nothing is shown: one process of several speaks for all.
  void silence();
  // Lines that are not worth train.log or a colour, e.g. a table.
  void raw(std::string_view text);

  // The live line. Redrawn at most ten times a second; an empty text removes it.
  void bar(std::string_view text, bool now = false);

  bool terminal() const { return terminal_; }                        // a bar can be drawn
  int line_width() const { return out_is_terminal_ ? width() : 0; }  // 0: lines may be as long as they like
  bool unicode() const { return unicode_; }
  int width() const;                             // columns; 100 where there is no terminal
  std::string dim(std::string_view text) const;  // coloured where colour is on
  std::string bold(std::string_view text) const;
  std::string accent(std::string_view text) const;

 private:
  // All four need the mutex.
  void write(std::FILE* stream, bool colour, std::string_view text);
  void erase_bar();
  void draw_bar();
  void log(std::string_view text);

  ConsoleOptions options_;
  bool terminal_, out_is_terminal_, out_colour_, err_colour_, unicode_;
  mutable std::mutex mutex_;
  std::FILE* log_ = nullptr;
  std::string bar_;
  bool bar_shown_ = false;
  Clock::time_point bar_drawn_{};
};

// The process's own console on stdout and stderr.
Console& console();

// Control characters (C0 except newline and tab, DEL, C1) and the marks that turn the direction of text around, with
// which a text can pretend to be another.
bool is_control(char32_t code);
// Removes escape sequences and control characters, so that hostile text (a document, a name) cannot move the cursor;
// newline and tab become spaces. Malformed UTF-8 becomes U+FFFD.
std::string printable(std::string_view text);
// Columns that a terminal needs for UTF-8 text (escape sequences count nothing, East Asian wide characters two).
int display_width(std::string_view text);

// One step as a line of aligned columns: "step   100/2,000  loss 4.1234  grad_norm 1.02  lr 6.00e-04  12,345 tok/s
// ...". Of what is wider than `width`, columns are left out from the right; 0: no limit. `eta_seconds` < 0: unknown.
std::string step_line(const Console&, const StepMetrics&, int64_t max_steps, double eta_seconds, int width = 0);

// A bar of `cells` columns, filled to `share`.
std::string meter(const Console&, double share, int cells);

enum class Unit { items, bytes, tokens, steps };

// The progress of something countable: a bar with share, amount, rate and time left on a terminal; elsewhere a plain
// line every 10 seconds and one at the end. Safe to advance from several threads.
class Progress {
 public:
  // total = 0: unknown, only amount and rate are shown.
  Progress(std::string label, int64_t total, Unit unit = Unit::items, Console& out = console());
  ~Progress();  // removes the bar; no closing line if finish() was not called (an error is on its way)
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void advance(int64_t amount = 1);
  void set(int64_t done);
  void note(std::string text);  // shown behind the rate: "loss 3.21"
  // Closes with one line: "label  1.2 GiB in 12 s (101 MiB/s)", plus `more`.
  void finish(std::string_view more = "");

 private:
  void show(bool now);
  std::string bar_text(double seconds) const;
  std::string plain_text(double seconds) const;
  std::string speed_text(double seconds) const;

  std::string label_, note_;
  int64_t total_, done_ = 0;
  Unit unit_;
  Console& console_;
  Clock::time_point started_, last_line_;
  std::mutex mutex_;
  bool finished_ = false;
};

}  // namespace mixtape
