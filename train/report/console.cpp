#include "train/report/console.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <ctime>

#include "core/base/error.h"
#include "core/base/utf8.h"
#include "train/report/machine.h"

namespace mixtape {
namespace {

constexpr std::string_view escape = "\x1b[", erase_line = "\r\x1b[K", reset = "\x1b[0m";

bool locale_is_utf8() {
  for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"})
    if (const std::string value = environment(name); !value.empty())
      return value.find("UTF-8") != value.npos || value.find("utf8") != value.npos || value.find("utf-8") != value.npos;
  return false;
}

bool is_terminal(std::FILE* stream) {
  const int fd = ::fileno(stream);
  return fd >= 0 && ::isatty(fd) && environment("TERM") != "dumb";
}

// If `text` begins with one of our colour sequences (ESC [ ... m), its length; else 0.
size_t colour_length(std::string_view text) {
  if (!text.starts_with(escape)) return 0;
  const size_t end = text.find_first_not_of("0123456789;", escape.size());
  return end != text.npos && text[end] == 'm' ? end + 1 : 0;
}

std::string without_colour(std::string_view text) {
  std::string plain;
  while (!text.empty()) {
    if (const size_t n = colour_length(text)) {
      text.remove_prefix(n);
    } else {
      plain += text.front();
      text.remove_prefix(1);
    }
  }
  return plain;
}

bool is_wide(char32_t c) {
  return (c >= 0x1100 && c <= 0x115F) || (c >= 0x2E80 && c <= 0xA4CF) || (c >= 0xAC00 && c <= 0xD7A3) ||
         (c >= 0xF900 && c <= 0xFAFF) || (c >= 0xFE30 && c <= 0xFE6F) || (c >= 0xFF00 && c <= 0xFF60) ||
         (c >= 0xFFE0 && c <= 0xFFE6) || (c >= 0x1F300 && c <= 0x1F64F) || (c >= 0x1F900 && c <= 0x1F9FF) ||
         (c >= 0x20000 && c <= 0x3FFFD);
}

int columns_of(char32_t c) {
  if (c < 0x20 || (c >= 0x300 && c <= 0x36F) || c == 0x200B || c == 0x200D || (c >= 0xFE00 && c <= 0xFE0F)) return 0;
  return is_wide(c) ? 2 : 1;
}

// The start of `text` that fits into `width` columns.
std::string fitted(std::string_view text, int width) {
  std::string out;
  bool coloured = false;
  while (!text.empty()) {
    if (const size_t n = colour_length(text)) {
      out += text.substr(0, n);
      text.remove_prefix(n);
      coloured = true;
      continue;
    }
    const char32_t c = take_character(text);
    if ((width -= columns_of(c)) < 0) break;
    append_utf8(out, c);
  }
  if (coloured) out += reset;
  return out;
}

std::string in_colour(bool colour, std::string_view code, std::string_view text) {
  return colour ? fmt::format("{}{}m{}{}", escape, code, text, reset) : std::string(text);
}

}  // namespace

Console::Console(ConsoleOptions options)
    : options_(options),
      terminal_(options.terminal.value_or(is_terminal(options.err))),
      out_is_terminal_(options.terminal.value_or(is_terminal(options.out))),
      out_colour_(options.colour.value_or(out_is_terminal_ && environment("NO_COLOR").empty())),
      err_colour_(options.colour.value_or(terminal_ && environment("NO_COLOR").empty())),
      unicode_(options.unicode.value_or(locale_is_utf8())) {}

Console::~Console() {
  if (bar_shown_) erase_bar();
  if (log_) std::fclose(log_);
}

void Console::log_to(const std::filesystem::path& file) {
  std::FILE* log = std::fopen(file.c_str(), "ae");
  if (!log) throw Error("{}: cannot be opened for writing: {}", file.string(), std::strerror(errno));
  const std::lock_guard guard(mutex_);
  if (log_) std::fclose(log_);
  log_ = log;
}

void Console::plain() {
  const std::lock_guard guard(mutex_);
  terminal_ = out_is_terminal_ = out_colour_ = err_colour_ = false;
}

void Console::silence() {
  plain();
  const std::lock_guard guard(mutex_);
  // Stays open: the console lives as long as the program.
  options_.out = options_.err = std::fopen("/dev/null", "we");
}

void Console::line(std::string_view shown, std::string_view logged) {
  const std::lock_guard guard(mutex_);
  log(logged);
  write(options_.out, out_colour_, shown);
}

void Console::raw(std::string_view text) {
  const std::lock_guard guard(mutex_);
  write(options_.out, out_colour_, text);
}

void Console::warn(std::string_view text) {
  const std::lock_guard guard(mutex_);
  log("warning: " + std::string(text));
  write(options_.err, err_colour_, in_colour(err_colour_, "33", "warning:") + " " + std::string(text));
}

void Console::write(std::FILE* stream, bool colour, std::string_view text) {
  const std::string line = (colour ? std::string(text) : without_colour(text)) + "\n";
  if (bar_shown_) erase_bar();
  std::fwrite(line.data(), 1, line.size(), stream);
  std::fflush(stream);
  if (!bar_.empty()) draw_bar();
}

void Console::bar(std::string_view text, bool now) {
  using namespace std::chrono_literals;
  if (!terminal_) return;
  const std::lock_guard guard(mutex_);
  bar_ = text;
  const auto time = Clock::now();
  if (bar_.empty()) {
    if (bar_shown_) erase_bar();
  } else if (now || time - bar_drawn_ >= 100ms) {
    bar_drawn_ = time;
    draw_bar();
  }
}

void Console::draw_bar() {
  // One column stays free: a full line would wrap, and the next redraw would then leave it behind.
  const std::string line = std::string(erase_line) + fitted(err_colour_ ? bar_ : without_colour(bar_), width() - 1);
  std::fwrite(line.data(), 1, line.size(), options_.err);
  std::fflush(options_.err);
  bar_shown_ = true;
}

void Console::erase_bar() {
  std::fwrite(erase_line.data(), 1, erase_line.size(), options_.err);
  std::fflush(options_.err);
  bar_shown_ = false;
}

void Console::log(std::string_view text) {
  if (!log_) return;
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  ::localtime_r(&now, &local);
  char time[32];
  std::strftime(time, sizeof time, "%Y-%m-%d %H:%M:%S", &local);
  std::fprintf(log_, "%s  %s\n", time, without_colour(text).c_str());
  std::fflush(log_);
}

int Console::width() const {
  if (options_.width) return *options_.width;
  winsize size{};
  for (std::FILE* stream : {options_.err, options_.out})
    if (::ioctl(::fileno(stream), TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  const int columns = std::atoi(environment("COLUMNS").c_str());
  return columns > 0 ? columns : 100;
}

std::string Console::dim(std::string_view text) const { return in_colour(out_colour_ || err_colour_, "2", text); }
std::string Console::bold(std::string_view text) const { return in_colour(out_colour_ || err_colour_, "1", text); }
std::string Console::accent(std::string_view text) const { return in_colour(out_colour_ || err_colour_, "36", text); }

Console& console() {
  static Console instance;
  return instance;
}

bool is_control(char32_t code) {
  return (code < 0x20 && code != '\n' && code != '\t') || (code >= 0x7F && code < 0xA0) ||
         (code >= 0x202A && code <= 0x202E) || (code >= 0x2066 && code <= 0x2069);
}

std::string printable(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const char32_t c = take_character(text);
    if (c == '\n' || c == '\t')
      out += ' ';
    else if (!is_control(c))
      append_utf8(out, c);
  }
  return out;
}

int display_width(std::string_view text) {
  int width = 0;
  while (!text.empty()) {
    if (const size_t n = colour_length(text))
      text.remove_prefix(n);
    else
      width += columns_of(take_character(text));
  }
  return width;
}

}  // namespace mixtape
